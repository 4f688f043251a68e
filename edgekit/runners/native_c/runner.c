/* Runs a job folder with ONNX Runtime's C interface, where there is no Python.
 *
 *   runner LIBONNXRUNTIME JOB_FOLDER [count]
 *
 * The library is opened by its path, so one build serves every release from 1.16 on. `job.txt`, the tensor
 * files and `result.json` are those of ../job_folder.py and ../child.py. With `count`, nothing is timed: each
 * counted inference lies between two system calls MARK, which an emulator's plugin sees. The job may have a
 * line `address_space_kib N` more.
 * Source: ONNX Runtime C API, onnxruntime_c_api.h. Little-endian Linux on x86-64, AArch64 and 32-bit ARM.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cpu.h"
#include "onnxruntime_c_api.h"

enum {
  API_VERSION = 16,   /* what is used of it is older than any runtime that may be asked for */
  MOST = 4096,        /* lines of a kind in a job, tensors in a file, dimensions */
  MARK = 0x4ED6,      /* no system call has this number: the kernel answers ENOSYS */
  COUNT_WARM_UP = 1,  /* the first run plans memory and allocates it */
};
typedef struct { char *name; uint32_t type; size_t rank, bytes; int64_t *shape; void *data; } Tensor;
typedef struct { size_t count; Tensor *all; } Tensors;
typedef struct { size_t count; char *all[MOST]; } Lines;
typedef struct { OrtSession *session; Lines inputs, outputs; } Model;

static const OrtApi *ort;
static OrtMemoryInfo *memory;

static void fail(const char *form, ...) {
  va_list args;
  va_start(args, form);
  vfprintf(stderr, form, args);
  fputc('\n', stderr);
  exit(1);
}
static void must(OrtStatus *status, const char *what) {
  if (status) fail("%s: %s", what, ort->GetErrorMessage(status));
}
static void *take(size_t bytes) {
  void *found = calloc(1, bytes ? bytes : 1);
  if (!found) fail("out of memory: %zu bytes asked", bytes);
  return found;
}

/* ---- files ---- */

static char *slurp(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  struct stat stat_;
  if (!file || fstat(fileno(file), &stat_)) fail("%s: %s", path, strerror(errno));
  *bytes = (size_t)stat_.st_size;
  char *text = take(*bytes + 1);
  if (fread(text, 1, *bytes, file) != *bytes) fail("%s: it cannot be read to its end", path);
  fclose(file);
  return text;
}
static Tensors read_tensors(const char *path) {
  size_t bytes, at = 8;
  char *raw = slurp(path, &bytes);
  uint32_t count, head[4];
  if (bytes < 8 || memcmp(raw, "EKT1", 4)) fail("%s: not a tensor file", path);
  memcpy(&count, raw + 4, 4);
  if (count > MOST) fail("%s: %u tensors", path, count);
  Tensors found = {count, take(count * sizeof(Tensor))};
  for (size_t i = 0; i < count; i++) {
    if (bytes - at < 16) fail("%s: it ends too early", path);
    memcpy(head, raw + at, 16), at += 16;
    Tensor *tensor = &found.all[i];
    tensor->type = head[1], tensor->rank = head[2];
    if (head[0] > bytes || head[2] > MOST || bytes - at < 8 * (size_t)head[2] + 8 + head[0])
      fail("%s: it ends too early", path);
    tensor->shape = take(8 * tensor->rank);
    memcpy(tensor->shape, raw + at, 8 * tensor->rank), at += 8 * tensor->rank;
    uint64_t size;
    memcpy(&size, raw + at, 8), at += 8;
    tensor->name = take(head[0] + 1u);
    memcpy(tensor->name, raw + at, head[0]), at += (head[0] + 7u) / 8 * 8;
    if (at > bytes || size > bytes - at) fail("%s: it ends too early", path);
    tensor->bytes = (size_t)size, tensor->data = raw + at, at += ((size_t)size + 7) / 8 * 8;
  }
  return found;
}
static void write_tensors(const char *path, Tensors tensors) {
  FILE *file = fopen(path, "wb");
  uint32_t count = (uint32_t)tensors.count;
  if (!file) fail("%s: %s", path, strerror(errno));
  fwrite("EKT1", 4, 1, file), fwrite(&count, 4, 1, file);
  for (size_t i = 0; i < tensors.count; i++) {
    Tensor *tensor = &tensors.all[i];
    uint32_t label = (uint32_t)strlen(tensor->name), head[4] = {label, tensor->type, (uint32_t)tensor->rank, 0};
    uint64_t size = tensor->bytes, zero = 0;
    fwrite(head, 16, 1, file), fwrite(tensor->shape, 8, tensor->rank, file), fwrite(&size, 8, 1, file);
    fwrite(tensor->name, 1, label, file), fwrite(&zero, 1, (8 - label % 8) % 8, file);
    fwrite(tensor->data, 1, tensor->bytes, file), fwrite(&zero, 1, (8 - tensor->bytes % 8) % 8, file);
  }
  if (ferror(file) | fclose(file)) fail("%s: %s", path, strerror(errno));
}

/* ---- job.txt ---- */

static Lines job;

/* The lines of the job that begin with a key, without it. */
static Lines job_lines(const char *key) {
  Lines found = {0};
  size_t length = strlen(key);
  for (size_t i = 0; i < job.count; i++)
    if (!strncmp(job.all[i], key, length) && job.all[i][length] == ' ')
      found.all[found.count++] = job.all[i] + length + 1;
  return found;
}
static int job_number(const char *key) {
  Lines found = job_lines(key);
  return found.count ? atoi(found.all[0]) : 0;
}
/* Cut a line at its first space; return what comes after. */
static char *cut(char *line) {
  char *space = strchr(line, ' ');
  if (!space) fail("job.txt: '%s' has one word, not two", line);
  *space = 0;
  return space + 1;
}
static void read_job(void) {
  size_t bytes;
  for (char *line = strtok(slurp("job.txt", &bytes), "\n"); line; line = strtok(NULL, "\n")) {
    if (job.count == MOST) fail("job.txt: more than %d lines", MOST);
    job.all[job.count++] = line;
  }
}

/* ---- the runtime ---- */

static Model open_model(OrtEnv *env, const char *path) {
  OrtSessionOptions *options;
  OrtAllocator *allocator;
  Model model = {0};
  must(ort->CreateSessionOptions(&options), "session options");
  must(ort->SetIntraOpNumThreads(options, job_number("threads")), "threads");
  must(ort->SetInterOpNumThreads(options, 1), "threads");
  must(ort->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"), "session options");
  Lines entries = job_lines("option");
  for (size_t i = 0; i < entries.count; i++) {
    char *key = strdup(entries.all[i]), *value = cut(key);
    must(ort->AddSessionConfigEntry(options, key, value), key);
  }
  must(ort->CreateSession(env, path, options, &model.session), path);
  must(ort->GetAllocatorWithDefaultOptions(&allocator), path);
  must(ort->SessionGetInputCount(model.session, &model.inputs.count), path);
  must(ort->SessionGetOutputCount(model.session, &model.outputs.count), path);
  if (model.inputs.count > MOST || model.outputs.count > MOST) fail("%s: too many inputs or outputs", path);
  for (size_t i = 0; i < model.inputs.count; i++)
    must(ort->SessionGetInputName(model.session, i, allocator, &model.inputs.all[i]), path);
  for (size_t i = 0; i < model.outputs.count; i++)
    must(ort->SessionGetOutputName(model.session, i, allocator, &model.outputs.all[i]), path);
  return model;
}
/* The values for a model's inputs, in its order; they lie in the tensors' own memory. */
static OrtValue **feed(const Model *model, Tensors tensors) {
  OrtValue **values = take(model->inputs.count * sizeof *values);
  for (size_t i = 0; i < model->inputs.count; i++) {
    Tensor *tensor = NULL;
    for (size_t k = 0; k < tensors.count; k++)
      if (!strcmp(tensors.all[k].name, model->inputs.all[i])) tensor = &tensors.all[k];
    if (!tensor) fail("the job has no input '%s'", model->inputs.all[i]);
    must(ort->CreateTensorWithDataAsOrtValue(memory, tensor->data, tensor->bytes, tensor->shape, tensor->rank,
                                             (ONNXTensorElementDataType)tensor->type, &values[i]),
         tensor->name);
  }
  return values;
}
static void infer(const Model *model, OrtValue **inputs, const Lines *wanted, OrtValue **outputs) {
  must(ort->Run(model->session, NULL, (const char *const *)model->inputs.all, (const OrtValue *const *)inputs,
                model->inputs.count, (const char *const *)wanted->all, wanted->count, outputs),
       "inference");
}
static void drop(const Lines *wanted, OrtValue **outputs) {
  for (size_t i = 0; i < wanted->count; i++) ort->ReleaseValue(outputs[i]), outputs[i] = NULL;
}
/* A copy of an output, which outlives the value. */
static Tensor copy_of(char *name, OrtValue *value) {
  static const uint8_t width[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8};
  OrtTensorTypeAndShapeInfo *info;
  ONNXTensorElementDataType type;
  Tensor found = {.name = name};
  void *data;
  must(ort->GetTensorTypeAndShape(value, &info), name);
  must(ort->GetTensorElementType(info, &type), name);
  must(ort->GetDimensionsCount(info, &found.rank), name);
  must(ort->GetTensorShapeElementCount(info, &found.bytes), name);
  found.shape = take(8 * found.rank), found.type = (uint32_t)type;
  must(ort->GetDimensions(info, found.shape, found.rank), name);
  ort->ReleaseTensorTypeAndShapeInfo(info);
  if (found.type >= sizeof width || !width[found.type]) fail("output '%s' has the type %u", name, found.type);
  must(ort->GetTensorMutableData(value, &data), name);
  found.bytes *= width[found.type], found.data = take(found.bytes);
  memcpy(found.data, data, found.bytes);
  return found;
}
/* Run every batch `repeats` times, write the first outputs; return whether all were the same. */
static int run_batches(const Model *model) {
  Lines batches = job_lines("batch"), wanted = job_lines("output");
  OrtValue **outputs = take(wanted.count * sizeof *outputs);
  int same = 1, repeats = job_number("repeats");
  char path[64];
  mkdir("out", 0777);
  for (size_t i = 0; i < batches.count; i++) {
    OrtValue **inputs = feed(model, read_tensors(batches.all[i]));
    Tensors first = {wanted.count, take(wanted.count * sizeof(Tensor))};
    for (int repeat = 0; repeat < repeats; repeat++, drop(&wanted, outputs)) {
      infer(model, inputs, &wanted, outputs);
      for (size_t k = 0; k < wanted.count; k++) {
        Tensor now = copy_of(wanted.all[k], outputs[k]);
        if (!repeat) { first.all[k] = now; continue; }
        same &= now.bytes == first.all[k].bytes && !memcmp(now.data, first.all[k].data, now.bytes);
        free(now.data), free(now.shape);
      }
    }
    snprintf(path, sizeof path, "out/%04zu.ekt", i);
    write_tensors(path, first);
  }
  return same;
}

/* ---- what the place says about itself ---- */

/* Leave only so much of a 32-bit address space free: where an emulator ignores limits, nothing else limits. */
static void limit_address_space(size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (sizeof(void *) > 4) fail("address_space_kib is for 32-bit systems; here, set a limit from outside");
  void *kept = mmap(NULL, bytes, PROT_NONE, flags, -1, 0);
  if (kept == MAP_FAILED) return; /* there is less than that already */
  for (size_t chunk = 1u << 30; chunk >= 1u << 18; chunk /= 2)
    while (mmap(NULL, chunk, PROT_NONE, flags, -1, 0) != MAP_FAILED) continue;
  munmap(kept, bytes);
}
static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}
static long peak_bytes(void) { return atol(proc_line("/proc/self/status", "VmHWM")) * 1024; }
static void quote(FILE *file, const char *text) {
  for (fputc('"', file); *text; text++)
    if ((unsigned char)*text < 32) fprintf(file, "\\u%04x", *text);
    else fprintf(file, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
  fputc('"', file);
}

/* ---- timing and counting ---- */

/* Time both models at one point, in turns; whoever goes second changes from run to run. */
static void time_point(FILE *file, char *point, const Model *models, size_t count, Tensors tensors) {
  int warm_up = job_number("warm_up"), runs = job_number("runs");
  double *spent[2];
  OrtValue **inputs[2], **outputs[2];
  for (size_t i = 0; i < count; i++) {
    spent[i] = take(sizeof(double) * (size_t)(runs + 1)), inputs[i] = feed(&models[i], tensors);
    outputs[i] = take(models[i].outputs.count * sizeof(OrtValue *));
  }
  for (int turn = 0; turn < warm_up + runs; turn++)
    for (size_t i = 0; i < count; i++) {
      size_t which = turn % 2 ? count - 1 - i : i;
      double begin = now_ms();
      infer(&models[which], inputs[which], &models[which].outputs, outputs[which]);
      if (turn >= warm_up) spent[which][turn - warm_up] = now_ms() - begin;
      drop(&models[which].outputs, outputs[which]);
    }
  fputs("{\"point\": ", file), quote(file, point);
  for (size_t i = 0; i < 2; i++) {
    size_t which = i ? count - 1 : 0; /* the job's model is the last, the float model may be absent */
    fprintf(file, ", \"%s\": [", i ? "shipped_ms" : "float_ms");
    for (int run = 0; run < runs && (i || count == 2); run++)
      fprintf(file, "%s%.6f", run ? ", " : "", spent[which][run]);
    fputc(']', file);
  }
  fputc('}', file);
}
/* One inference of each model at one point, between two marks with the number of what is counted. */
static void count_point(size_t point, const Model *models, size_t count, Tensors tensors) {
  for (size_t i = 0; i < count; i++) {
    OrtValue **inputs = feed(&models[i], tensors), **outputs = take(models[i].outputs.count * sizeof *outputs);
    long number = (long)(2 * point + (i + 1 == count));
    for (int run = 0; run < COUNT_WARM_UP + 1; run++, drop(&models[i].outputs, outputs)) {
      if (run >= COUNT_WARM_UP) syscall(MARK, 0L, number);
      infer(&models[i], inputs, &models[i].outputs, outputs);
      if (run >= COUNT_WARM_UP) syscall(MARK, 1L, number);
    }
  }
}

int main(int count, char **args) {
  if (count < 3) fail("usage: runner LIBONNXRUNTIME JOB_FOLDER [count]");
  setenv("ORT_DISABLE_TELEMETRY", "1", 1); /* no thread that wants the network while a model runs */
  void *library = dlopen(args[1], RTLD_NOW);
  if (!library) fail("%s", dlerror());
  const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
  if (!base) fail("%s", dlerror());
  const char *version = base()->GetVersionString();
  if (!(ort = base()->GetApi(API_VERSION))) fail("ONNX Runtime %s has no C API %d", version, API_VERSION);
  if (chdir(args[2])) fail("%s: %s", args[2], strerror(errno));
  read_job();
  if (job_number("address_space_kib")) limit_address_space((size_t)job_number("address_space_kib") << 10);

  OrtEnv *env;
  Model models[2];
  Lines shipped = job_lines("model"), baseline = job_lines("float"), points = job_lines("point");
  if (!shipped.count) fail("job.txt names no model");
  must(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "edgekit", &env), "environment");
  must(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "memory");
  long before = peak_bytes();
  double begin = now_ms();
  size_t last = baseline.count ? 1 : 0;
  models[last] = open_model(env, shipped.all[0]);
  double load_ms = now_ms() - begin;
  int same = run_batches(&models[last]);
  long peak = peak_bytes();
  if (last) models[0] = open_model(env, baseline.all[0]);

  FILE *file = fopen("result.json.part", "w");
  if (!file) fail("result.json: %s", strerror(errno));
  fputs("{\"runtime_version\": ", file), quote(file, version), fputs(", \"cpu\": ", file);
  quote(file, cpu_name()), fputs(", \"cpu_features\": [", file);
  for (size_t i = 0, told = 0; i < sizeof cpu_known / sizeof *cpu_known; i++)
    if (cpu_has(cpu_known[i])) fprintf(file, "%s\"%s\"", told++ ? ", " : "", cpu_known[i].name);
  fputc(']', file);
  fprintf(file, ", \"deterministic\": %s, \"load_ms\": %.6f", same ? "true" : "false", load_ms);
  if (peak) fprintf(file, ", \"peak_memory_bytes\": %ld", peak - before);
  fputs(", \"times\": [", file);
  for (size_t i = 0; i < points.count; i++) {
    char *path = cut(points.all[i]);
    Tensors tensors = read_tensors(path);
    if (count > 3) { count_point(i, models, last + 1, tensors); continue; }
    fputs(i ? ", " : "", file), time_point(file, points.all[i], models, last + 1, tensors);
  }
  fputs("]}\n", file);
  if (ferror(file) | fclose(file) || rename("result.json.part", "result.json"))
    fail("result.json: %s", strerror(errno));
  return 0;
}
