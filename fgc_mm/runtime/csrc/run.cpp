// Runs a model on images: the context pool, parallel images, profiling.
#include <string.h>
#include <time.h>

#include <algorithm>

#include "guard.h"

namespace fgc {

void call_user_function(Context& c, int64_t function, const float* const* xs,
                        float* const* ys) {
  try {
    c.call(c.call_context, function, xs, ys);
  } catch (...) {
    c.call_failed = true;
  }
}

namespace {

constexpr int64_t kMaxThreads = 1024;

std::unique_ptr<RunContext> make_run_context(const fgc_model& m,
                                             int64_t threads) {
  const LoadedProgram& l = m.loaded;
  auto run_context = std::make_unique<RunContext>();
  run_context->threads = threads;
  run_context->arena = AlignedBuffer((l.program.arena + 2 * kSlack) * 4);
  run_context->image =
      AlignedBuffer((element_count(l.values[0]) + 2 * kSlack) * 4);
  int64_t entries = 0;
  for (const int64_t size : l.sets) entries += size + 1;
  run_context->lists = AlignedBuffer(entries * 8 + 64);
  int64_t* list = (int64_t*)run_context->lists.begin();
  for (const int64_t size : l.sets) {
    run_context->list_pointers.push_back(list);
    list += size + 1;
  }
  run_context->counts.resize(l.sets.size() + 1);
  const int64_t thread_bytes = (m.thread_bytes + 64 + 127) / 64 * 64;
  run_context->shared_scratch = AlignedBuffer(m.shared_bytes + 4 * kSlack);
  run_context->thread_scratch =
      AlignedBuffer(thread_bytes * threads + 4 * kSlack);
  Context& c = run_context->context;
  c.arena = (float*)run_context->arena.begin() + kSlack;
  c.image = (float*)run_context->image.begin() + kSlack;
  c.weights = l.program.weights;
  c.lists = run_context->list_pointers.data();
  c.counts = run_context->counts.data();
  c.shared_scratch = run_context->shared_scratch.begin();
  c.thread_scratch = run_context->thread_scratch.begin();
  c.thread_step = thread_bytes;
  return run_context;
}

// An idle context, or a new one, for exclusive use; the destructor returns it.
class PooledContext {
 public:
  PooledContext(const fgc_model& m, RunState& state,
                const fgc_options& options, int64_t threads)
      : state_(state) {
    {
      const std::lock_guard<std::mutex> lock(state.mutex);
      auto& idle = state.idle_contexts;
      const auto found = std::find_if(
          idle.begin(), idle.end(),
          [&](const auto& one) { return one->threads >= threads; });
      if (found != idle.end()) std::swap(*found, idle.back());
      if (!idle.empty()) {
        run_context_ = std::move(idle.back());
        idle.pop_back();
      }
      // so that the destructor's push_back cannot throw
      idle.reserve(idle.size() + kMaxThreads);
    }
    // replaced, so that there are never more than were used at a time
    if (run_context_ && run_context_->threads < threads) run_context_.reset();
    if (!run_context_) run_context_ = make_run_context(m, threads);
    Context& c = run_context_->context;
    c.threads = threads;
    c.thread_pool = threads > 1 ? &state.thread_pool : nullptr;
    c.call = options.call;
    c.call_context = options.context;
    c.call_failed = false;
  }
  PooledContext(PooledContext&& other)
      : state_(other.state_), run_context_(std::move(other.run_context_)) {}
  ~PooledContext() {
    if (!run_context_) return;
    const std::lock_guard<std::mutex> lock(state_.mutex);
    state_.idle_contexts.push_back(std::move(run_context_));
  }
  Context& context() const { return run_context_->context; }

 private:
  RunState& state_;
  std::unique_ptr<RunContext> run_context_;
};

void set_image(const fgc_model& m, Context& c, const float* image) {
  memcpy(const_cast<float*>(c.image), image,
         size_t(element_count(m.loaded.values[0])) * sizeof(float));
  std::fill(c.counts, c.counts + m.loaded.sets.size(), int64_t(0));
}

bool skips(const Op& op, bool decisions) {
  return op.records_only && !decisions;
}

struct Batch {
  const fgc_model& model;
  const float* images;
  float* const* outputs;
  bool decisions;

  void run_image(Context& c, int64_t n) const {
    const LoadedProgram& l = model.loaded;
    set_image(model, c, images + n * element_count(l.values[0]));
    for (const Op& op : l.ops)
      if (!skips(op, decisions) && !c.call_failed)
        op.computed_by->run(l.program, op, c);
    const size_t count = decisions ? l.outputs.size() : size_t(l.records);
    for (size_t k = 0; k < count; ++k) {
      if (!outputs[k]) continue;
      const int64_t id = l.outputs[k];
      model.build->kernel->read(
          l.program, id, c,
          outputs[k] + n * element_count(l.values[size_t(id)]));
    }
  }
};

fgc_options checked_options(const fgc_model* model,
                            const fgc_options* given) {
  fgc_options options = {sizeof(fgc_options), 1, 0, nullptr, nullptr};
  expect_argument(model, "model is NULL: load one");
  if (given) {
    expect_argument(given->size == int64_t(sizeof(fgc_options)),
                    "options.size is not sizeof(fgc_options): compile with "
                    "the library's fgc.h");
    options = *given;
  }
  if (options.threads < 0 || options.threads > kMaxThreads)
    throw Error{FGC_BAD_ARGUMENT,
                std::to_string(options.threads) + " threads are requested, "
                "but a run has from 0 to " + std::to_string(kMaxThreads) +
                ": give a number in that range"};
  options.threads = std::max<int64_t>(options.threads, 1);
  for (const Op& op : model->loaded.ops)
    expect_argument(op.kind != kCall || options.call ||
                        skips(op, options.decisions != 0),
                    "the model calls functions of the caller: give "
                        "options.call (in Python functions=[...])");
  return options;
}

void expect_no_failed_call(const std::vector<PooledContext>& contexts) {
  for (const PooledContext& one : contexts)
    if (one.context().call_failed)
      throw Error{FGC_CALL_FAILED,
                  "options.call threw an exception: fix the function"};
}

void run_batch(const Batch& batch, int64_t count,
               const fgc_options& options) {
  const int64_t threads =
      count == 1 ? 1 : std::min(options.threads, count);
  RunState& state = batch.model.run_state();
  std::vector<PooledContext> contexts;
  for (int64_t t = 0; t < threads; ++t)
    contexts.emplace_back(batch.model, state, options,
                          count == 1 ? options.threads : 1);
  const auto run_range = [&](int64_t begin, int64_t end, int64_t thread) {
    for (int64_t n = begin; n < end; ++n)
      batch.run_image(contexts[size_t(thread)].context(), n);
  };
  if (threads == 1)
    run_range(0, count, 0);
  else
    state.thread_pool.parallel_for(
        threads, count, 1,
        [](void* data, int64_t begin, int64_t end, int64_t thread) {
          (*(const decltype(run_range)*)data)(begin, end, thread);
        },
        (void*)&run_range);
  expect_no_failed_call(contexts);
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

void profile(const fgc_model& m, const float* image, int64_t repeats,
             const fgc_options& options, double* seconds) {
  std::vector<PooledContext> contexts;
  contexts.emplace_back(m, m.run_state(), options, options.threads);
  Context& c = contexts[0].context();
  const std::vector<Op>& ops = m.loaded.ops;
  std::fill(seconds, seconds + ops.size(), 0.0);
  for (int64_t r = 0; r < repeats; ++r) {
    set_image(m, c, image);
    for (size_t k = 0; k < ops.size(); ++k) {
      if (skips(ops[k], options.decisions != 0) || c.call_failed) continue;
      const double begin = now();
      ops[k].computed_by->run(m.loaded.program, ops[k], c);
      const double taken = now() - begin;
      seconds[k] = r ? std::min(seconds[k], taken) : taken;
    }
  }
  expect_no_failed_call(contexts);
}

}  // namespace
}  // namespace fgc

using namespace fgc;

RunState& fgc_model::run_state() const {
  RunState* current = run_state_.load();
  if (current->process == getpid()) return *current;
  auto own = std::make_unique<RunState>();
  if (run_state_.compare_exchange_strong(current, own.get()))
    current = own.release();
  return *current;
}

fgc_model::~fgc_model() {
  RunState* const current = run_state_.load();
  if (current->process == getpid()) delete current;
}

int fgc_run(const fgc_model* model, const float* images, int64_t count,
            float* const* outputs, const fgc_options* options, char* error,
            uint64_t error_size) {
  return guard(error, error_size, [&] {
    const fgc_options o = checked_options(model, options);
    expect_argument(count >= 0 && (images || !count),
                    "images is NULL, or count is negative: give images");
    expect_argument(outputs || !fgc_outputs(model),
                    "outputs is NULL: give a pointer, or NULL, per output");
    if (count)
      run_batch({*model, images, outputs, o.decisions != 0}, count, o);
  });
}

int fgc_profile(const fgc_model* model, const float* image, int64_t repeats,
                const fgc_options* options, double* seconds, char* error,
                uint64_t error_size) {
  return guard(error, error_size, [&] {
    const fgc_options o = checked_options(model, options);
    expect_argument(image && seconds && repeats >= 1,
                    "image or seconds is NULL, or repeats is below 1");
    profile(*model, image, repeats, o, seconds);
  });
}
