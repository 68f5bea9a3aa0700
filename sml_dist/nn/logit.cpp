// The product that makes a logit, y = sum_k weight_k x_k, forward and backward; (rows, width) -> (rows,).
//
// T is the type of x, P that of the arithmetic, the weight and y. torch turns a bfloat16 x into float32 first, and its float32
// gradient back: two copies of twice its size, which took longer than the product.

#include <cstdint>
#include <omp.h>

#include "numbers.h"

namespace {

template <class T, class P> void forward(const T* x, const P* weight, P* y, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const T* __restrict x_row = x + row * width;
    P sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < width; ++k) sum += weight[k] * load(x_row[k]);
    y[row] = sum;
  }
}

// `sums`, zeros (threads, width), gets each thread's part of the weight's gradient.
template <class T, class P>
void backward(const T* x, const P* weight, const P* dy, T* dx, P* sums, int64_t rows, int64_t width, int threads) {
#pragma omp parallel num_threads(threads)
  {
    P* __restrict dweight = sums + omp_get_thread_num() * width;
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const T* __restrict x_row = x + row * width;
      T* __restrict dx_row = dx + row * width;
      const P g = dy[row];
#pragma omp simd
      for (int64_t k = 0; k < width; ++k) {
        store(dx_row[k], g * weight[k]);
        dweight[k] += g * load(x_row[k]);
      }
    }
  }
}

}  // namespace

#define SML_DIST_LOGIT(name, T, P)                                                                                                      \
  extern "C" void forward_##name(const T* x, const P* weight, P* y, int64_t rows, int64_t width, int threads) {                         \
    forward<T, P>(x, weight, y, rows, width, threads);                                                                                  \
  }                                                                                                                                     \
  extern "C" void backward_##name(const T* x, const P* weight, const P* dy, T* dx, P* sums, int64_t rows, int64_t width, int threads) { \
    backward<T, P>(x, weight, dy, dx, sums, rows, width, threads);                                                                      \
  }

SML_DIST_LOGIT(float32, float, float)
SML_DIST_LOGIT(float64, double, double)
SML_DIST_LOGIT(bfloat16, bf16, float)
