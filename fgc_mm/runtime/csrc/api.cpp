// The C functions that load, configure and describe a model.
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "guard.h"

namespace fgc {

namespace {

void prepare(fgc_model& model, const Build* bfloat16) {
  LoadedProgram& l = model.loaded;
  double bytes = 4.0 * double(l.program.arena) +
                 4.0 * double(element_count(l.values[0]));
  for (const int64_t size : l.sets) bytes += 8.0 * double(size);
  expect_memory(bytes);
  for (Op& op : l.ops) {
    const bool supports =
        bfloat16 && bfloat16->kernel->supports(l.program, op);
    op.computed_by = supports ? bfloat16->kernel : model.build->kernel;
    if (!op.computed_by->prepare(l.program, op, l.memory))
      throw Error{FGC_NO_MEMORY,
                  "the model exceeds any memory: use a smaller one"};
    model.shared_bytes = std::max(model.shared_bytes, op.shared_bytes);
    model.thread_bytes = std::max(model.thread_bytes, op.thread_bytes);
  }
  expect_memory(bytes + double(l.memory.bytes) + double(model.shared_bytes) +
                double(model.thread_bytes));
}

std::string all_builds() {
  std::string all = fgc_builds();
  if (!bfloat16_builds().empty()) all += ",bfloat16";
  for (const Build& build : bfloat16_builds())
    all += std::string(",") + build.name;
  return all;
}

std::unique_ptr<fgc_model> load_model(const void* bytes, uint64_t size,
                                      const char* build) {
  auto model = std::make_unique<fgc_model>();
  const Build* const named = build ? find_bfloat16_build(build) : nullptr;
  model->build = find_build(named ? nullptr : build);
  if (!model->build)
    throw Error{FGC_BAD_ARGUMENT, std::string("the build '") + build +
                                      "' is none of " + all_builds() +
                                      ": name one of these, or none"};
  load((const char*)bytes, size, model->loaded);
  check(model->loaded);
  const bool asked = model->loaded.program.bfloat16;
  const Build* half = named;
  if (asked && !named && bfloat16_pays())
    half = find_bfloat16_build("bfloat16");
  prepare(*model, asked ? half : nullptr);
  return model;
}

// Reads a file.
std::vector<char> read_file(const char* path) {
  const auto close = [](FILE* f) { fclose(f); };
  const std::unique_ptr<FILE, decltype(close)> file(fopen(path, "rb"), close);
  std::vector<char> bytes;
  if (file && !fseek(file.get(), 0, SEEK_END)) {
    const long size = ftell(file.get());
    rewind(file.get());
    if (size >= 0 && size < long(1) << 48) {
      bytes.resize(size_t(size));
      if (fread(bytes.data(), 1, bytes.size(), file.get()) == bytes.size())
        return bytes;
    }
  }
  throw Error{FGC_UNREADABLE, std::string(path) +
                                  " cannot be read: give the path of a .fgc "
                                  "file"};
}

}  // namespace
}  // namespace fgc

using namespace fgc;

int fgc_load(const void* bytes, uint64_t size, const char* build,
             fgc_model** model, char* error, uint64_t error_size) {
  return guard(error, error_size, [&] {
    expect_argument(bytes && model, "bytes or model is NULL: give both");
    *model = nullptr;
    *model = load_model(bytes, size, build).release();
  });
}

int fgc_load_file(const char* path, const char* build, fgc_model** model,
                  char* error, uint64_t error_size) {
  return guard(error, error_size, [&] {
    expect_argument(path && model, "path or model is NULL: give both");
    *model = nullptr;
    const std::vector<char> bytes = read_file(path);
    *model = load_model(bytes.data(), bytes.size(), build).release();
  });
}

void fgc_free(fgc_model* model) { delete model; }

int fgc_alone(fgc_model* model, const unsigned char* ops, int64_t count,
              char* error, uint64_t error_size) {
  return guard(error, error_size, [&] {
    expect_argument(model && ops && count == fgc_ops(model),
                    "model or ops is NULL, or there is not one byte per op: "
                    "give fgc_ops(model) bytes");
    for (int64_t k = 0; k < count; ++k)
      model->loaded.ops[size_t(k)].single_threaded = ops[k] != 0;
  });
}

int64_t fgc_ops(const fgc_model* model) {
  return model ? int64_t(model->loaded.ops.size()) : 0;
}

int64_t fgc_outputs(const fgc_model* model) {
  return model ? int64_t(model->loaded.outputs.size()) : 0;
}

int64_t fgc_records(const fgc_model* model) {
  return model ? model->loaded.records : 0;
}

int fgc_shape(const fgc_model* model, int64_t output, int64_t shape[3]) {
  if (!model || !shape || output < -1 || output >= fgc_outputs(model))
    return FGC_BAD_ARGUMENT;
  const LoadedProgram& l = model->loaded;
  const Value& v =
      l.values[size_t(output < 0 ? 0 : l.outputs[size_t(output)])];
  shape[0] = v.channels;
  shape[1] = v.height;
  shape[2] = v.width;
  return FGC_OK;
}

const char* fgc_meta(const fgc_model* model, uint64_t* length) {
  if (length) *length = model ? model->loaded.meta.size() : 0;
  return model ? model->loaded.meta.c_str() : "";
}

const char* fgc_build(const fgc_model* model) {
  return model ? model->build->name : "";
}

const char* fgc_precision(const fgc_model* model) {
  if (model)
    for (const Op& op : model->loaded.ops)
      if (op.computed_by != model->build->kernel) return "bfloat16";
  return "float32";
}

const char* fgc_builds(void) {
  return guarded("", [] {
    static const std::string names = [] {
      std::string all;
      for (const Build& build : runnable_builds())
        all += (all.empty() ? "" : ",") + std::string(build.name);
      return all;
    }();
    return names.c_str();
  });
}

double fgc_peak(const char* build, double seconds) {
  return guarded(0.0, [&] {
    const Build* half = build ? find_bfloat16_build(build) : nullptr;
    const Build* found = half ? half : find_build(build);
    return found ? found->kernel->peak(seconds) : 0;
  });
}

int fgc_bfloat16(void) { return guarded(false, bfloat16_pays); }

int fgc_version(void) { return 1; }
