/* Answers the CPUID instructions of a patched library with some feature bits cleared.
 *
 * Each CPUID of the library was overwritten with UD2, which is as long. Both the addresses (SITES, ascending,
 * relative to the library's base) and a part of its file name (LIBRARY) come from the kit, in sites.h. The
 * handler asks the real CPU, clears bits, and goes on behind the instruction.
 *
 * EDGEKIT_CPUID_MASK    "leaf.subleaf:eax:ebx:ecx:edx ..." in hex, bits to clear; subleaf ffffffff is any
 * EDGEKIT_CPUID_REPORT  file to write at the end: how often the library asked, and what it would be told
 *
 * Source: Intel SDM volume 2, CPUID and UD; sigaction(2), SA_SIGINFO.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "sites.h"

#define ANY 0xffffffffu
#define MASKS 16

static struct { uint32_t leaf, subleaf, bits[4]; } masks[MASKS];
static int mask_count;
static volatile int asked;
extern const char edgekit_own_site[] __attribute__((visibility("hidden")));

static int is_site(const char *at) {
    Dl_info module;
    if (at == edgekit_own_site) return 1;
    if (!dladdr(at, &module) || !strstr(module.dli_fname, LIBRARY)) return 0;
    uintptr_t place = (uintptr_t)at - (uintptr_t)module.dli_fbase;
    size_t low = 0, high = sizeof SITES / sizeof *SITES;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (SITES[middle] < place) low = middle + 1; else high = middle;
    }
    return low < sizeof SITES / sizeof *SITES && SITES[low] == place;
}

static void on_illegal(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const char *at = (const char *)registers[REG_RIP];
    if (!is_site(at)) { /* somebody else's: back to it, and it ends the process as it would have */
        signal(number, SIG_DFL);
        return;
    }
    uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX], told[4];
    __cpuid_count(leaf, subleaf, told[0], told[1], told[2], told[3]);
    for (int i = 0; i < mask_count; i++)
        if (masks[i].leaf == leaf && (masks[i].subleaf == subleaf || masks[i].subleaf == ANY))
            for (int k = 0; k < 4; k++) told[k] &= ~masks[i].bits[k];
    registers[REG_RAX] = told[0];
    registers[REG_RBX] = told[1];
    registers[REG_RCX] = told[2];
    registers[REG_RDX] = told[3];
    registers[REG_RIP] += 2;
    if (at != edgekit_own_site) __sync_fetch_and_add(&asked, 1);
    (void)info;
}

/* Asks the way the patched library does. */
__attribute__((noinline, noclone)) static void ask(uint32_t leaf, uint32_t subleaf, uint32_t told[4]) {
    __asm__ volatile("edgekit_own_site: ud2"
                     : "=a"(told[0]), "=b"(told[1]), "=c"(told[2]), "=d"(told[3])
                     : "a"(leaf), "c"(subleaf));
}

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("EDGEKIT_CPUID_MASK");
    for (int used; text && mask_count < MASKS; text += used, mask_count++) {
        uint32_t *bits = masks[mask_count].bits;
        if (sscanf(text, " %x.%x:%x:%x:%x:%x%n", &masks[mask_count].leaf, &masks[mask_count].subleaf,
                   &bits[0], &bits[1], &bits[2], &bits[3], &used) != 6) break;
    }
    struct sigaction action = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
}

__attribute__((destructor)) static void end(void) {
    static const uint32_t leaves[][2] = {{1, 0}, {7, 0}, {7, 1}};
    const char *path = getenv("EDGEKIT_CPUID_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "asked %d\n", asked);
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        uint32_t told[4];
        ask(leaves[i][0], leaves[i][1], told);
        fprintf(file, "%x.%x %x %x %x %x\n", leaves[i][0], leaves[i][1], told[0], told[1], told[2], told[3]);
    }
    fclose(file);
}
