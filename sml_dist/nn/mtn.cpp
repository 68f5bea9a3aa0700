// Elementwise Meta Tanh Normalisation in one pass over x, forward and backward; rows * width values, each parameter one a column.
//
//   norm:  y = scale * tanh(s * x),          s = leaky_relu(bias + weight * x);  (rows, width) -> (rows, width)
//   dot:   y = sum_k scale_k tanh(s_k x_k),  a Skip Logit's term, whose scale is MTN's times the logit's weight;  -> (rows,)
//
// T is the type of x, P that of the arithmetic and the parameters. Nothing but x is kept for backward. torch's own tanh took
// half of an SML step's extra time on a CPU, and each of the other ten operations reads and writes all of x.

#include <cmath>
#include <cstdint>
#include <omp.h>

#include "numbers.h"

namespace {

inline double tanh_of(double u) { return std::tanh(u); }

// tanh(u) = u p(u^2) / q(u^2) on |u| <= 8, constant beyond: p and q of degree 4, fitted to the least largest relative error,
// 6e-9; with float's own rounding 3e-7, and never above 1. It vectorises, and a NaN passes both comparisons.
inline float tanh_of(float u) {
  u = u > 8.0f ? 8.0f : u;
  u = u < -8.0f ? -8.0f : u;
  float z = u * u;
  float p = 1.523097e-08f;
  p = p * z + 2.18950655e-05f;
  p = p * z + 0.00357162281f;
  p = p * z + 0.13444519f;
  p = p * z + 0.999999994f;
  float q = 8.52267407e-07f;
  q = q * z + 0.000341133236f;
  q = q * z + 0.0261645376f;
  q = q * z + 0.467778463f;
  q = q * z + 1.0f;
  return u * p / q;
}

// tanh's slope at u, from t = tanh(u): nothing where it was cut off.
inline double bend(double, double t) { return 1.0 - t * t; }
inline float bend(float u, float t) { return u * u > 64.0f ? 0.0f : 1.0f - t * t; }

template <class P> inline P leak(P a, P slope) { return a > 0 ? P(1) : slope; }

template <class T, class P>
void norm_forward(const T* x, const P* weight, const P* bias, const P* scale, T* y, int64_t rows, int64_t width, P slope, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const T* __restrict x_row = x + row * width;
    T* __restrict y_row = y + row * width;
#pragma omp simd
    for (int64_t k = 0; k < width; ++k) {
      P v = load(x_row[k]), a = bias[k] + weight[k] * v;
      store(y_row[k], scale[k] * tanh_of(leak(a, slope) * a * v));
    }
  }
}

template <class T, class P>
void dot_forward(const T* x, const P* weight, const P* bias, const P* scale, P* y, int64_t rows, int64_t width, P slope, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const T* __restrict x_row = x + row * width;
    P sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < width; ++k) {
      P v = load(x_row[k]), a = bias[k] + weight[k] * v;
      sum += scale[k] * tanh_of(leak(a, slope) * a * v);
    }
    y[row] = sum;
  }
}

// `sums`, zeros (threads, 3, width), gets each thread's part of the gradients of weight, bias and scale; dy_at(row, k) is y's.
template <class T, class P, class Gradient>
void backward(const T* x, const P* weight, const P* bias, const P* scale, Gradient dy_at, T* dx, P* sums, int64_t rows, int64_t width,
              P slope, int threads) {
#pragma omp parallel num_threads(threads)
  {
    P* __restrict dweight = sums + omp_get_thread_num() * 3 * width;
    P* __restrict dbias = dweight + width;
    P* __restrict dscale = dbias + width;
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const T* __restrict x_row = x + row * width;
      T* __restrict dx_row = dx + row * width;
      const auto dy = dy_at(row);
#pragma omp simd
      for (int64_t k = 0; k < width; ++k) {
        P v = load(x_row[k]), a = bias[k] + weight[k] * v;
        P s = leak(a, slope) * a, u = s * v, t = tanh_of(u), g = dy(k);
        P du = g * scale[k] * bend(u, t);
        P da = du * v * leak(a, slope);
        store(dx_row[k], du * s);
        dweight[k] += da * v;
        dbias[k] += da;
        dscale[k] += g * t;
      }
    }
  }
}

}  // namespace

#define SML_DIST_MTN(name, T, P)                                                                                                        \
  extern "C" void norm_forward_##name(const T* x, const P* weight, const P* bias, const P* scale, T* y, int64_t rows, int64_t width,    \
                                      double slope, int threads) {                                                                      \
    norm_forward<T, P>(x, weight, bias, scale, y, rows, width, P(slope), threads);                                                      \
  }                                                                                                                                     \
  extern "C" void dot_forward_##name(const T* x, const P* weight, const P* bias, const P* scale, P* y, int64_t rows, int64_t width,     \
                                     double slope, int threads) {                                                                       \
    dot_forward<T, P>(x, weight, bias, scale, y, rows, width, P(slope), threads);                                                       \
  }                                                                                                                                     \
  extern "C" void norm_backward_##name(const T* x, const P* weight, const P* bias, const P* scale, const T* dy, T* dx, P* sums,         \
                                       int64_t rows, int64_t width, double slope, int threads) {                                        \
    auto dy_at = [=](int64_t row) { return [=](int64_t k) { return load(dy[row * width + k]); }; };                                     \
    backward<T, P>(x, weight, bias, scale, dy_at, dx, sums, rows, width, P(slope), threads);                                            \
  }                                                                                                                                     \
  extern "C" void dot_backward_##name(const T* x, const P* weight, const P* bias, const P* scale, const P* dy, T* dx, P* sums,          \
                                      int64_t rows, int64_t width, double slope, int threads) {                                         \
    auto dy_at = [=](int64_t row) { return [=, g = dy[row]](int64_t) { return g; }; };                                                  \
    backward<T, P>(x, weight, bias, scale, dy_at, dx, sums, rows, width, P(slope), threads);                                            \
  }

SML_DIST_MTN(float32, float, float)
SML_DIST_MTN(float64, double, double)
SML_DIST_MTN(bfloat16, bf16, float)
