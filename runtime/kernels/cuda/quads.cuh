// Four values side by side, read and written at once where they lie in memory as that asks for.
#pragma once

#include "portable.cuh"

constexpr int kQuad = 4;

__device__ __forceinline__ bool is_aligned(const void* address, int bytes) {
    return reinterpret_cast<uint64>(address) % bytes == 0;
}

// Reads them, if they lie where they can be read at once.
__device__ __forceinline__ bool load_quad(const float* source, float (&values)[kQuad]) {
    if (!is_aligned(source, 16)) return false;
    const uint4 loaded = load_once(reinterpret_cast<const uint4*>(source));
    values[0] = bits_to_float(loaded.x);
    values[1] = bits_to_float(loaded.y);
    values[2] = bits_to_float(loaded.z);
    values[3] = bits_to_float(loaded.w);
    return true;
}

__device__ __forceinline__ bool load_quad(const uint8* source, float (&values)[kQuad]) {
    if (!is_aligned(source, 4)) return false;
    const uint32 loaded = *reinterpret_cast<const uint32*>(source);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) values[i] = static_cast<float>(loaded >> (8 * i) & 0xff);
    return true;
}

// Writes the first of them, all four at once where that can be.
__device__ __forceinline__ void store_quad(const float (&values)[kQuad], int count, float* target) {
    if (count == kQuad && is_aligned(target, 16)) {
        *reinterpret_cast<uint4*>(target) = make_uint4(float_to_bits(values[0]), float_to_bits(values[1]),
                                                       float_to_bits(values[2]), float_to_bits(values[3]));
        return;
    }
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
        if (i < count) target[i] = values[i];
    }
}
