// Eight floats side by side, in the vector extension that GCC and Clang share: they become whatever registers the
// translation unit is compiled for.
#pragma once

#include <cstdint>

namespace flawline {
namespace {

typedef float Lanes __attribute__((vector_size(32)));
typedef float UnalignedLanes __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int64_t kLanes = 8;

// Half as many, for what is left at the end of a vector.
typedef float HalfLanes __attribute__((vector_size(16)));
typedef float UnalignedHalfLanes __attribute__((vector_size(16), aligned(4), may_alias));
constexpr int64_t kHalfLanes = 4;

#define FLAWLINE_INLINE inline __attribute__((always_inline))

FLAWLINE_INLINE Lanes load_lanes(const float* source) { return *reinterpret_cast<const UnalignedLanes*>(source); }

FLAWLINE_INLINE void store_lanes(float* target, Lanes value) { *reinterpret_cast<UnalignedLanes*>(target) = value; }

FLAWLINE_INLINE HalfLanes load_half_lanes(const float* source) {
    return *reinterpret_cast<const UnalignedHalfLanes*>(source);
}

FLAWLINE_INLINE void store_half_lanes(float* target, HalfLanes value) {
    *reinterpret_cast<UnalignedHalfLanes*>(target) = value;
}

template <class Value>
FLAWLINE_INLINE Value lerp(Value low, Value high, float weight) {
    return low + weight * (high - low);
}

FLAWLINE_INLINE float sum_lanes(Lanes value) {
    return ((value[0] + value[4]) + (value[2] + value[6])) + ((value[1] + value[5]) + (value[3] + value[7]));
}

// Lane j of row i becomes lane i of row j.
FLAWLINE_INLINE void transpose(Lanes (&rows)[8]) {
    Lanes pairs[8], quads[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        pairs[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; ++j) {
            quads[i + 2 * j] = __builtin_shufflevector(pairs[i + j], pairs[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            quads[i + 2 * j + 1] = __builtin_shufflevector(pairs[i + j], pairs[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    }
    for (int i = 0; i < 4; ++i) {
        rows[i] = __builtin_shufflevector(quads[i], quads[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        rows[i + 4] = __builtin_shufflevector(quads[i], quads[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

}  // namespace
}  // namespace flawline
