// Numbers as they lie in memory, and as arithmetic has them: bfloat16 is computed in float.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct bf16 { uint16_t bits; };

template <class To, class From> inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

inline float load(float v) { return v; }
inline double load(double v) { return v; }
inline float load(bf16 v) { return bit_cast<float>(uint32_t(v.bits) << 16); }

inline void store(float& to, float v) { to = v; }
inline void store(double& to, double v) { to = v; }
inline void store(bf16& to, float v) {  // to the nearest, ties to even; NaN stays NaN
  uint32_t bits = bit_cast<uint32_t>(v);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

}  // namespace
