/* Runs the program of a dynamic network (a .fgc file) on the CPU.
 *
 * Every function may be called from any thread. A model is not changed by
 * running it, so several threads may run one model at the same time. No
 * function throws; those that return int return one of the codes below, and
 * write a message of one sentence to `error` (of `error_size` bytes; may be
 * NULL).
 */
#ifndef FGC_H
#define FGC_H

#include <stdint.h>

#if defined(__GNUC__)
#define FGC_API __attribute__((visibility("default")))
#else
#define FGC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
  FGC_OK = 0,
  FGC_BAD_FILE = 1,     /* truncated, not a model, or inconsistent */
  FGC_UNREADABLE = 2,   /* the file cannot be read */
  FGC_NO_MEMORY = 3,
  FGC_BAD_ARGUMENT = 4,
  FGC_CALL_FAILED = 5   /* the call function of the options failed */
};

typedef struct fgc_model fgc_model;

typedef struct {
  int64_t size;      /* sizeof(fgc_options) */
  int64_t threads;   /* 0: one */
  int64_t decisions; /* 0: skips ops marked records_only; the outputs from
                        fgc_records() on are not written */
  /* Computes CALL ops: contiguous (C, H, W) inputs and outputs. The file
     gives the number of the function, 0 or more, and the shapes. May be called
     from several threads at once. NULL if the program has none. */
  void (*call)(void *context, int64_t function, const float *const *xs,
               float *const *ys);
  void *context;
} fgc_options;

/* build: a name of fgc_builds(), or NULL for the fastest; "bfloat16", where
   the CPU has instructions for it, is the fastest, and files that request
   bfloat16 are computed in it even where it is slower; "bfloat16-amx" and
   "bfloat16-avx512" are its builds. The bytes are copied. */
FGC_API int fgc_load(const void *bytes, uint64_t size, const char *build,
                     fgc_model **model, char *error, uint64_t error_size);
FGC_API int fgc_load_file(const char *path, const char *build,
                          fgc_model **model, char *error,
                          uint64_t error_size);

/* images: (count, C, H, W). outputs: fgc_records(model) pointers, with
   decisions fgc_outputs(model); each to (count, C, H, W), contiguous, or NULL
   to skip it. options: NULL for one thread, no decisions. */
FGC_API int fgc_run(const fgc_model *model, const float *images,
                    int64_t count, float *const *outputs,
                    const fgc_options *options, char *error,
                    uint64_t error_size);

/* seconds: of every op, the minimum of the repeats. */
FGC_API int fgc_profile(const fgc_model *model, const float *image,
                        int64_t repeats, const fgc_options *options,
                        double *seconds, char *error, uint64_t error_size);

/* Sets which ops run on a single thread: one byte per op, 1 or 0. Must not be
   called while the model runs. */
FGC_API int fgc_alone(fgc_model *model, const unsigned char *ops,
                      int64_t count, char *error, uint64_t error_size);

FGC_API void fgc_free(fgc_model *model);

FGC_API int64_t fgc_ops(const fgc_model *model);
FGC_API int64_t fgc_outputs(const fgc_model *model);
/* Number of outputs that are not decisions (of a classifier: 1, its logits);
   they come first. */
FGC_API int64_t fgc_records(const fgc_model *model);
/* Channels, height and width of an output, or of the image (output -1). */
FGC_API int fgc_shape(const fgc_model *model, int64_t output,
                      int64_t shape[3]);
/* The JSON of the file, terminated by a 0; valid until fgc_free. */
FGC_API const char *fgc_meta(const fgc_model *model, uint64_t *length);
/* Name of the build that runs the model. */
FGC_API const char *fgc_build(const fgc_model *model);
/* "bfloat16" if convs of the model use it, otherwise "float32": the file does
   not request it, or this CPU multiplies it no faster (fgc_bfloat16). */
FGC_API const char *fgc_precision(const fgc_model *model);
/* Builds that this CPU can run, fastest first, separated by commas. */
FGC_API const char *fgc_builds(void);
/* Peak multiply-adds per second of one thread, measured for `seconds`; 0 if
   this CPU cannot run the build. Those of bfloat16 are accepted. */
FGC_API double fgc_peak(const char *build, double seconds);
/* 1 if this CPU multiplies bfloat16 at least 1.3 times as fast as float32,
   so that files which request it are computed in it, otherwise 0. */
FGC_API int fgc_bfloat16(void);
FGC_API int fgc_version(void);

#ifdef __cplusplus
}
#endif

#endif
