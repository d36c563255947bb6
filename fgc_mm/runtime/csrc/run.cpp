// Runs a model: contexts that are used again, images shared out to threads.
#include <string.h>
#include <time.h>

#include <algorithm>

#include "guard.h"
#include "model.h"

namespace fgc {

void call_out(Context& c, int64_t function, const float* const* xs,
              float* const* ys) {
  try {
    c.call(c.call_context, function, xs, ys);
  } catch (...) {
    c.call_failed = true;
  }
}

namespace {

constexpr int64_t kMostThreads = 1024;

int64_t numbers_of(const Value& v) {
  return v.channels * v.height * v.width;
}

std::unique_ptr<Lease> make_lease(const fgc_model& m, int64_t threads) {
  const Loaded& l = m.loaded;
  auto lease = std::make_unique<Lease>();
  lease->threads = threads;
  lease->arena = Memory((l.program.arena + 2 * kSlack) * 4);
  lease->image = Memory((numbers_of(l.values[0]) + 2 * kSlack) * 4);
  int64_t entries = 0;
  for (const int64_t size : l.sets) entries += size + 1;
  lease->lists = Memory(entries * 8 + 64);
  int64_t* list = (int64_t*)lease->lists.begin();
  for (const int64_t size : l.sets) {
    lease->starts.push_back(list);
    list += size + 1;
  }
  lease->counts.resize(l.sets.size() + 1);
  const int64_t own = (m.own_bytes + 64 + 127) / 64 * 64;
  lease->shared = Memory(m.shared_bytes + 4 * kSlack);
  lease->own = Memory(own * threads + 4 * kSlack);
  Context& c = lease->context;
  c.arena = (float*)lease->arena.begin() + kSlack;
  c.image = (float*)lease->image.begin() + kSlack;
  c.weights = l.program.weights;
  c.lists = lease->starts.data();
  c.counts = lease->counts.data();
  c.shared = lease->shared.begin();
  c.own = lease->own.begin();
  c.own_step = own;
  return lease;
}

// A lease that nobody else has meanwhile.
class Lent {
 public:
  Lent(const fgc_model& m, const fgc_options& options, int64_t threads)
      : model_(m) {
    {
      const std::lock_guard<std::mutex> lock(m.mutex);
      for (auto& idle : m.idle)
        if (idle->threads >= threads && !lease_) lease_ = std::move(idle);
      m.idle.erase(std::remove(m.idle.begin(), m.idle.end(), nullptr),
                   m.idle.end());
      m.idle.reserve(m.idle.size() + kMostThreads);  // so giving back is safe
    }
    if (!lease_) lease_ = make_lease(m, threads);
    Context& c = lease_->context;
    c.threads = threads;
    c.team = threads > 1 ? &m.team : nullptr;
    c.call = options.call;
    c.call_context = options.context;
    c.call_failed = false;
  }
  Lent(Lent&& other)
      : model_(other.model_), lease_(std::move(other.lease_)) {}
  ~Lent() {
    if (!lease_) return;
    const std::lock_guard<std::mutex> lock(model_.mutex);
    model_.idle.push_back(std::move(lease_));
  }
  Context& context() const { return lease_->context; }

 private:
  const fgc_model& model_;
  std::unique_ptr<Lease> lease_;
};

void enter(const fgc_model& m, Context& c, const float* image) {
  memcpy(const_cast<float*>(c.image), image,
         size_t(numbers_of(m.loaded.values[0])) * sizeof(float));
  std::fill(c.counts, c.counts + m.loaded.sets.size(), int64_t(0));
}

bool skips(const Op& op, bool decisions) {
  return op.records_only && !decisions;
}

struct Job {
  const fgc_model& model;
  const float* images;
  float* const* outputs;
  bool decisions;

  void one(Context& c, int64_t n) const {
    const Loaded& l = model.loaded;
    enter(model, c, images + n * numbers_of(l.values[0]));
    for (const Op& op : l.ops)
      if (!skips(op, decisions) && !c.call_failed)
        op.computed_by->run(l.program, op, c);
    for (size_t k = 0; k < l.outputs.size(); ++k) {
      if (!outputs[k] || (int64_t(k) >= l.records && !decisions)) continue;
      const int64_t id = l.outputs[k];
      model.build->kernel->read(
          l.program, id, c, outputs[k] + n * numbers_of(l.values[size_t(id)]));
    }
  }
};

fgc_options checked(const fgc_model* model, const fgc_options* given) {
  fgc_options options = {sizeof(fgc_options), 1, 0, nullptr, nullptr};
  expect_argument(model, "model is NULL: load one");
  if (given) {
    expect_argument(given->size == int64_t(sizeof(fgc_options)),
                    "options.size is not sizeof(fgc_options): compile with "
                    "the library's fgc.h");
    options = *given;
  }
  expect_argument(options.threads >= 0 && options.threads <= kMostThreads,
                  "options.threads must be from 0 to 1024");
  options.threads = std::max<int64_t>(options.threads, 1);
  for (const Op& op : model->loaded.ops)
    expect_argument(op.kind != kCall || options.call ||
                        skips(op, options.decisions != 0),
                    "the model calls functions: give options.call");
  return options;
}

void expect_calls(const std::vector<Lent>& lent) {
  for (const Lent& one : lent)
    if (one.context().call_failed)
      throw Error{FGC_CALL_FAILED,
                  "options.call threw an exception: mend the function"};
}

void run_all(const Job& job, int64_t count, const fgc_options& options) {
  const int64_t threads =
      count == 1 ? 1 : std::min(options.threads, count);
  std::vector<Lent> lent;
  for (int64_t t = 0; t < threads; ++t)
    lent.emplace_back(job.model, options, count == 1 ? options.threads : 1);
  const auto part = [&](int64_t begin, int64_t end, int64_t thread) {
    for (int64_t n = begin; n < end; ++n)
      job.one(lent[size_t(thread)].context(), n);
  };
  if (threads == 1)
    part(0, count, 0);
  else
    job.model.team.share(
        threads, count, 1,
        [](void* data, int64_t begin, int64_t end, int64_t thread) {
          (*(const decltype(part)*)data)(begin, end, thread);
        },
        (void*)&part);
  expect_calls(lent);
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

void measure(const fgc_model& m, const float* image, int64_t repeats,
             const fgc_options& options, double* seconds) {
  std::vector<Lent> lent;
  lent.emplace_back(m, options, options.threads);
  Context& c = lent[0].context();
  const std::vector<Op>& ops = m.loaded.ops;
  std::fill(seconds, seconds + ops.size(), 0.0);
  for (int64_t r = 0; r < repeats; ++r) {
    enter(m, c, image);
    for (size_t k = 0; k < ops.size(); ++k) {
      if (skips(ops[k], options.decisions != 0) || c.call_failed) continue;
      const double begin = now();
      ops[k].computed_by->run(m.loaded.program, ops[k], c);
      const double taken = now() - begin;
      seconds[k] = r ? std::min(seconds[k], taken) : taken;
    }
  }
  expect_calls(lent);
}

}  // namespace
}  // namespace fgc

using namespace fgc;

int fgc_run(const fgc_model* model, const float* images, int64_t count,
            float* const* outputs, const fgc_options* options, char* error,
            uint64_t error_size) {
  return guard(error, error_size, [&] {
    const fgc_options o = checked(model, options);
    expect_argument(count >= 0 && (images || !count),
                    "images is NULL, or count is negative: give images");
    expect_argument(outputs || !fgc_outputs(model),
                    "outputs is NULL: give a pointer, or NULL, per output");
    if (count)
      run_all({*model, images, outputs, o.decisions != 0}, count, o);
  });
}

int fgc_profile(const fgc_model* model, const float* image, int64_t repeats,
                const fgc_options* options, double* seconds, char* error,
                uint64_t error_size) {
  return guard(error, error_size, [&] {
    const fgc_options o = checked(model, options);
    expect_argument(image && seconds && repeats >= 1,
                    "image or seconds is NULL, or repeats is below 1");
    measure(*model, image, repeats, o, seconds);
  });
}
