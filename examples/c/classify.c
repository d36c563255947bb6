/* classify MODEL.fgc IMAGE: the five largest outputs for one image.
 *
 * IMAGE has the float32 numbers (C, H, W) that the network is given, in the
 * byte order of this machine: the pixels must have been normalised.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fgc.h"

static char error[512];

static void expect(int code) {
  if (!code) return;
  fprintf(stderr, "%s\n", error);
  exit(code);
}

static float *numbers(int64_t count) {
  float *to = calloc((size_t)count, sizeof(float));
  if (!to) exit(FGC_NO_MEMORY);
  return to;
}

/* Of an output, or of the image (output -1). */
static int64_t size_of(const fgc_model *model, int64_t output) {
  int64_t s[3];
  snprintf(error, sizeof error, "the model has no output %lld",
           (long long)output);
  expect(fgc_shape(model, output, s));
  return s[0] * s[1] * s[2];
}

static float *read_image(const char *path, int64_t count) {
  float *image = numbers(count + 1);
  FILE *file = fopen(path, "rb");
  size_t got = file ? fread(image, sizeof(float), (size_t)count + 1, file) : 0;
  snprintf(error, sizeof error, "%s has not %lld float32 numbers", path,
           (long long)count);
  expect(got == (size_t)count ? 0 : FGC_UNREADABLE);
  fclose(file);
  return image;
}

/* Of every second output from `first` on: masks, each 0 or 1. */
static void print_open(const fgc_model *model, float **outputs,
                       int64_t first) {
  int64_t open = 0, all = 0;
  for (int64_t k = first; k < fgc_outputs(model); k += 2) {
    const int64_t size = size_of(model, k);
    for (int64_t i = 0; i < size; ++i, ++all) open += outputs[k][i] > 0;
  }
  if (all) printf("share of channels open: %.3f\n", (double)open / all);
}

static void print_largest(float *scores, int64_t count) {
  for (int rank = 0; rank < 5 && rank < count; ++rank) {
    int64_t best = 0;
    for (int64_t k = 1; k < count; ++k)
      if (scores[k] > scores[best]) best = k;
    printf("class %lld: %g\n", (long long)best, scores[best]);
    scores[best] = -1e30f;
  }
}

int main(int argc, char **argv) {
  fgc_model *model;
  struct timespec a, b;
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.fgc IMAGE\n", argv[0]);
    return FGC_BAD_ARGUMENT;
  }
  expect(fgc_load_file(argv[1], NULL, &model, error, sizeof error));
  const int64_t classes = size_of(model, 0);
  float *image = read_image(argv[2], size_of(model, -1));
  float **outputs = calloc((size_t)fgc_outputs(model) + 1, sizeof *outputs);
  if (!outputs) return FGC_NO_MEMORY;
  for (int64_t k = 0; k < fgc_outputs(model); ++k)
    outputs[k] = numbers(size_of(model, k));
  fgc_options options = {sizeof options, 1, 1, NULL, NULL};
  for (int run = 0; run < 2; ++run) { /* the first one fetches all memory */
    clock_gettime(CLOCK_MONOTONIC, &a);
    expect(fgc_run(model, image, 1, outputs, &options, error, sizeof error));
    clock_gettime(CLOCK_MONOTONIC, &b);
  }
  printf("%.2f ms, %s\n",
         (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) * 1e-6,
         fgc_build(model));
  /* after the first outputs: logits and mask of every gate, in turn */
  print_open(model, outputs, fgc_records(model) + 1);
  print_largest(outputs[0], classes);
  fgc_free(model);
  return 0;
}
