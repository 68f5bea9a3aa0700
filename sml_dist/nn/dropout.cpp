// Dropout in one pass: y_i = x_i * scale where the i-th random number is at least `drop`, 0 elsewhere.
//
// The i-th number is a hash of i and the seed, so that backward draws the same ones anew and no mask is kept.

#include <cstdint>

#include "numbers.h"

namespace {

// A bijection of 32 bits in which a flip of any input bit flips each output bit half the time (Wellons, "lowbias32", 2018).
inline uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

// Two rounds, a half of the seed before each: with one, two seeds would give one sequence at two offsets.
template <class T, class P> void dropout(const T* __restrict x, T* __restrict y, int64_t n, uint64_t seed, uint32_t drop, P scale, int threads) {
  const uint32_t low = uint32_t(seed), high = uint32_t(seed >> 32);
#pragma omp parallel for simd num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    uint32_t random = mix(mix(uint32_t(i) ^ low) ^ high);
    store(y[i], random >= drop ? P(load(x[i]) * scale) : P(0));
  }
}

}  // namespace

#define SML_DIST_DROPOUT(name, T, P)                                                                                              \
  extern "C" void dropout_##name(const T* x, T* y, int64_t n, uint64_t seed, uint32_t drop, double scale, int threads) {          \
    dropout<T, P>(x, y, n, seed, drop, P(scale), threads);                                                                        \
  }

SML_DIST_DROPOUT(float32, float, float)
SML_DIST_DROPOUT(float64, double, double)
SML_DIST_DROPOUT(bfloat16, bf16, float)
