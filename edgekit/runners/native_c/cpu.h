/* The CPU as a program sees it from inside: its name and the features that compute kernels ask for.
 *
 * On ARM these are bits of the auxiliary vector (word 0 AT_HWCAP, word 1 AT_HWCAP2), on x86 of CPUID.
 * Source: Linux, uapi/asm/hwcap.h of arm64 and arm, and "ARM64 CPU Feature Registers" (MIDR_EL1 read at EL0);
 * Intel SDM vol. 2A, CPUID: leaf 1 ECX, leaf 7.0 EBX, ECX and EDX, leaf 7.1 EAX.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

typedef struct { unsigned word, bit; const char *name; } Feature;

static const Feature cpu_known[] = {
#if defined(__aarch64__)
  {0, 1, "asimd"}, {0, 3, "aes"}, {0, 8, "atomics"}, {0, 9, "fphp"}, {0, 10, "asimdhp"}, {0, 11, "cpuid"},
  {0, 20, "asimddp"}, {0, 22, "sve"}, {1, 1, "sve2"}, {1, 9, "svei8mm"}, {1, 13, "i8mm"}, {1, 14, "bf16"},
  {1, 23, "sme"}, {1, 37, "sme2"},
#elif defined(__arm__)
  {0, 6, "vfp"}, {0, 12, "neon"}, {0, 13, "vfpv3"}, {0, 16, "vfpv4"}, {0, 17, "idiva"}, {0, 18, "idivt"},
  {0, 22, "fphp"}, {0, 23, "asimdhp"}, {0, 24, "asimddp"}, {0, 27, "i8mm"},
#elif defined(__x86_64__)
  {0, 9, "ssse3"}, {0, 12, "fma"}, {0, 19, "sse4_1"}, {0, 20, "sse4_2"}, {0, 28, "avx"}, {0, 29, "f16c"},
  {1, 5, "avx2"}, {1, 16, "avx512f"}, {1, 30, "avx512bw"}, {1, 31, "avx512vl"}, {2, 11, "avx512_vnni"},
  {3, 22, "amx_bf16"}, {3, 24, "amx_tile"}, {3, 25, "amx_int8"}, {4, 4, "avx_vnni"},
#endif
};

static int cpu_has(Feature feature) {
  static uint64_t words[5];
  static int asked;
  if (!asked) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d)) words[0] = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
      words[1] = b, words[2] = c, words[3] = d;
      if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) words[4] = a;
    }
#else
    words[0] = getauxval(AT_HWCAP), words[1] = getauxval(AT_HWCAP2);
#endif
    asked = 1;
  }
  return words[feature.word] >> feature.bit & 1;
}

/* The value of a line `key : value` in one of /proc's files; empty where there is none. */
static const char *proc_line(const char *path, const char *key) {
  static char line[4096];
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    if (strncmp(line, key, strlen(key)) || !colon) continue;
    fclose(file);
    line[strcspn(line, "\n")] = 0;
    return colon + 1 + strspn(colon + 1, " \t");
  }
  if (file) fclose(file);
  return "";
}

/* The brand on x86, the main identification register on AArch64, else what the kernel calls it. */
static const char *cpu_name(void) {
  static char name[64];
#if defined(__aarch64__)
  if (cpu_has((Feature){0, 11, "cpuid"})) {
    uint64_t midr;
    __asm__("mrs %0, midr_el1" : "=r"(midr));
    snprintf(name, sizeof name, "MIDR 0x%08llx", (unsigned long long)midr);
    return name;
  }
#elif defined(__x86_64__)
  unsigned brand[13] = {0};
  for (unsigned i = 0; i < 3; i++)
    __get_cpuid(0x80000002 + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2], &brand[4 * i + 3]);
  snprintf(name, sizeof name, "%s", (char *)brand + strspn((char *)brand, " "));
#endif
  if (!*name) snprintf(name, sizeof name, "%s", proc_line("/proc/cpuinfo", "model name"));
  return name;
}
