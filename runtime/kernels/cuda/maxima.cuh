// Maxima of floats that are not negative, found as those of their bits.
#pragma once

#include "portable.cuh"

// Largest of a warp. Of the bits of floats, that of the floats: none of them negative, and NaN is above all numbers.
__device__ __forceinline__ uint32 largest_of_warp(uint32 bits) {
#pragma unroll
    for (int half = kWarp / 2; half; half /= 2) {
        const uint32 other = __shfl_xor_sync(kAllLanes, bits, half);
        bits = other > bits ? other : bits;
    }
    return bits;
}

// The bits of a float that is not negative, or those of a NaN without its sign.
__device__ __forceinline__ uint32 ordered_bits(float value) { return float_to_bits(value) & 0x7fffffffu; }
