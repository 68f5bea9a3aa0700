// Rowwise Adagrad on the rows that a batch looked up, each updated once, by the sum of its gradients:
//
//   state_r += mean_d g_rd^2,   w_rd -= lr * g_rd / (sqrt(state_r) + eps),   g_r = decay * w_r + the sum of the gradients of r's lookups.
//
// Lookups of one row are chained in their order through a hash table of the row's id, so no gradient is copied or sorted, and the sum's
// order does not depend on the threads. Tables lie in memory far beyond the caches: rows are fetched some turns ahead.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t AHEAD = 12;  // rows
constexpr int64_t LINE = 16;  // floats

struct Row { int64_t id; int32_t first, last; };
struct Use { const float* gradient; float share; int32_t next; };  // one lookup of a row
struct Task { int64_t first, last; int part, parts; };  // features of one table, and which of its rows

// Bags of F features, B each: bag b of feature f has the ids from offsets[f * B + b] to the next bag's.
template <class I> struct Lookups {
  const I *ids, *offsets;
  int64_t B, F;
  int64_t between(int64_t first, int64_t last) const { return offsets[last * B] - offsets[first * B]; }
};

struct Tables {
  float* weights;
  const int64_t* weight_of;  // by feature, where its table begins
  float* state;
  const int64_t* state_of;
  const int32_t* column_of;  // by feature, of the gradient's row; F + 1
  float lr, eps, decay;
};

class Scratch {
 public:
  std::vector<Row> rows;
  std::vector<Use> uses;
  std::vector<float> sum;

  void reset(int64_t lookups, int64_t D) {
    bits = 1;
    while ((int64_t(1) << bits) < 2 * lookups) ++bits;
    slots.assign(size_t(1) << bits, -1);
    rows.clear();
    uses.clear();
    sum.resize(D);
  }

  void add(int64_t id, uint64_t hash, const float* gradient, float share) {
    const int32_t use = int32_t(uses.size());
    uses.push_back({gradient, share, -1});
    size_t slot = hash >> (64 - bits);
    for (; slots[slot] >= 0; slot = (slot + 1) & (slots.size() - 1)) {
      Row& row = rows[slots[slot]];
      if (row.id == id) {
        uses[row.last].next = use;
        row.last = use;
        return;
      }
    }
    slots[slot] = int32_t(rows.size());
    rows.push_back({id, use, use});
  }

 private:
  std::vector<int32_t> slots;
  int bits = 1;
};

template <class I>
void chain(Scratch& scratch, const Lookups<I>& at, const Tables& tables, const Task& task, const float* gradient, int64_t width, bool mean) {
  for (int64_t f = task.first; f < task.last; ++f) {
    for (int64_t b = 0; b < at.B; ++b) {
      const int64_t start = at.offsets[f * at.B + b], stop = at.offsets[f * at.B + b + 1];
      const float share = mean && stop > start ? 1.0f / float(stop - start) : 1.0f;
      for (int64_t i = start; i < stop; ++i) {
        const uint64_t hash = uint64_t(at.ids[i]) * 0x9e3779b97f4a7c15u;
        if (int((uint64_t(uint32_t(hash >> 8)) * uint64_t(task.parts)) >> 32) != task.part) continue;
        scratch.add(at.ids[i], hash, gradient + b * width + tables.column_of[f], share);
      }
    }
  }
}

inline void fetch(const float* row, int64_t D) {
  for (int64_t d = 0; d < D; d += LINE) __builtin_prefetch(row + d, 1);
}

void update(Scratch& scratch, const Tables& tables, int64_t f) {
  const int64_t D = tables.column_of[f + 1] - tables.column_of[f], count = int64_t(scratch.rows.size());
  float *weights = tables.weights + tables.weight_of[f], *states = tables.state + tables.state_of[f];
  for (int64_t r = 0; r < count; ++r) {
    if (r + AHEAD < count) {
      const int64_t later = scratch.rows[r + AHEAD].id;
      fetch(weights + later * D, D);
      __builtin_prefetch(states + later, 1);
    }
    const Row& row = scratch.rows[r];
    const Use* use = &scratch.uses[row.first];
    const float* g = use->gradient;
    float* w = weights + row.id * D;
    if (use->next >= 0 || use->share != 1.0f || tables.decay != 0.0f) {
      float* sum = scratch.sum.data();
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) sum[d] = tables.decay * w[d];
      for (;; use = &scratch.uses[use->next]) {
        const float *part = use->gradient, share = use->share;
#pragma omp simd
        for (int64_t d = 0; d < D; ++d) sum[d] += part[d] * share;
        if (use->next < 0) break;
      }
      g = sum;
    }
    float square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t d = 0; d < D; ++d) square += g[d] * g[d];
    float& state = states[row.id];
    state += square / float(D);
    const float step = tables.lr / (std::sqrt(state) + tables.eps);
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) w[d] -= step * g[d];
  }
}

template <class I> void rowwise_adagrad(const Lookups<I>& at, const Tables& tables, const float* gradient, int64_t width, bool mean, int threads) {
  const int64_t all = std::max<int64_t>(at.between(0, at.F), 1);
  std::vector<Task> tasks;
  for (int64_t f = 0, last; f < at.F; f = last) {
    for (last = f + 1; last < at.F && tables.weight_of[last] == tables.weight_of[f];) ++last;
    const int parts = int(std::clamp<int64_t>((at.between(f, last) * threads + all - 1) / all, 1, threads));
    for (int part = 0; part < parts; ++part) tasks.push_back({f, last, part, parts});
  }
#pragma omp parallel num_threads(threads)
  {
    Scratch scratch;
#pragma omp for schedule(dynamic)
    for (size_t t = 0; t < tasks.size(); ++t) {
      const Task& task = tasks[t];
      scratch.reset(at.between(task.first, task.last), tables.column_of[task.first + 1] - tables.column_of[task.first]);
      chain(scratch, at, tables, task, gradient, width, mean);
      update(scratch, tables, task.first);
    }
  }
}

}  // namespace

#define SML_DIST_ROWWISE_ADAGRAD(name, I)                                                                                              \
  extern "C" void rowwise_adagrad_##name(                                                                                              \
      const float* gradient, float* weights, const int64_t* weight_of, float* state, const int64_t* state_of, const int32_t* column_of, \
      const I* ids, const I* offsets, int64_t B, int64_t F, int64_t width, int mean, float lr, float eps, float decay, int threads) {  \
    const Tables tables{weights, weight_of, state, state_of, column_of, lr, eps, decay};                                               \
    rowwise_adagrad<I>({ids, offsets, B, F}, tables, gradient, width, mean, threads);                                                  \
  }

SML_DIST_ROWWISE_ADAGRAD(int32, int32_t)
SML_DIST_ROWWISE_ADAGRAD(int64, int64_t)
