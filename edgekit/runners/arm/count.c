/* A plugin of qemu-user 7.2 that counts executed instructions by class between marks of the guest.
 *
 *   qemu-aarch64 -plugin count.so,classes=CLASSES,out=OUT ...
 *
 * CLASSES has one line `mask value class` (hexadecimal, hexadecimal, number) per pattern; an instruction
 * belongs to the first pattern that it matches. A guest's system call MARK, which no kernel knows, begins (first
 * argument 0) or ends (1) a count with the number in its second argument; OUT then gets a line
 * `number total class0 class1 ...`. A block of translated code adds what is in it when it is entered.
 * Source: QEMU 7.2, docs/devel/tcg-plugins.rst and the plugin interface, version 1. What is used of it is
 * declared here, so that no header is needed.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };
typedef void (*on_translation)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*on_syscall)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_translation);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, on_syscall);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

enum { MOST = 128, MARK = 0x4ED6 };
static struct { uint32_t mask, value; unsigned class_; } patterns[MOST];
static uint64_t counts[MOST + 1], begun[MOST + 1]; /* the last one counts all instructions */
static size_t pattern_count, class_count;
static FILE *out;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  uint64_t found[MOST] = {0};
  size_t length = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < length; i++) {
    const struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
    uint32_t word = 0;
    if (qemu_plugin_insn_size(insn) != 4) continue;
    memcpy(&word, qemu_plugin_insn_data(insn), 4);
    for (size_t k = 0; k < pattern_count; k++)
      if ((word & patterns[k].mask) == patterns[k].value) {
        found[patterns[k].class_]++;
        break;
      }
  }
  qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counts[MOST], length);
  for (size_t i = 0; i < class_count; i++)
    if (found[i]) qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counts[i], found[i]);
}

static void called(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t ends, uint64_t what, uint64_t c,
                   uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number != MARK) return;
  if (!ends) {
    memcpy(begun, counts, sizeof counts);
    return;
  }
  fprintf(out, "%llu %llu", (unsigned long long)what, (unsigned long long)(counts[MOST] - begun[MOST]));
  for (size_t i = 0; i < class_count; i++) fprintf(out, " %llu", (unsigned long long)(counts[i] - begun[i]));
  fputc('\n', out);
  fflush(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **args) {
  (void)info;
  FILE *classes = NULL;
  for (int i = 0; i < count; i++) {
    if (!strncmp(args[i], "classes=", 8)) classes = fopen(args[i] + 8, "r");
    if (!strncmp(args[i], "out=", 4)) out = fopen(args[i] + 4, "w");
  }
  if (!classes || !out) {
    fputs("count: give classes=FILE and out=FILE\n", stderr);
    return -1;
  }
  unsigned mask, value, class_;
  while (fscanf(classes, "%x %x %u", &mask, &value, &class_) == 3) {
    if (pattern_count == MOST || class_ >= MOST) {
      fputs("count: too many classes\n", stderr);
      return -1;
    }
    patterns[pattern_count].mask = mask, patterns[pattern_count].value = value;
    patterns[pattern_count++].class_ = class_;
    if (class_ >= class_count) class_count = class_ + 1;
  }
  fclose(classes);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
