// What the kernels take from the compiler: nvcc and NVRTC on a device, a C++ compiler under the emulator of the tests.
//
// No header is included, so that NVRTC needs nothing but these sources.
#pragma once

using int64 = long long;
using uint64 = unsigned long long;
using uint32 = unsigned int;
using uint16 = unsigned short;
using uint8 = unsigned char;
using int8 = signed char;

constexpr int kWarp = 32;
constexpr uint32 kAllLanes = 0xffffffffu;

#ifdef __CUDACC__

// The shared memory that the launch asks for.
#define FLAWLINE_SHARED(type, name)                                \
    extern __shared__ __align__(16) unsigned char shared_bytes[];  \
    type* name = reinterpret_cast<type*>(shared_bytes)

// A function that the host launches by this name, with one struct of arguments that it knows as `job`. Registers are
// given out so that `least_blocks` of `most_threads` fit a multiprocessor.
#define FLAWLINE_RESIDENT_KERNEL(most_threads, least_blocks, name, Job) \
    extern "C" __global__ void __launch_bounds__(most_threads, least_blocks) name(const Job job)

#define FLAWLINE_KERNEL(most_threads, name, Job) FLAWLINE_RESIDENT_KERNEL(most_threads, 1, name, Job)

__device__ __forceinline__ float from_half(uint16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Sixteen bytes that are read once: kept out of the first-level cache, fetched into the second by whole 256-byte pieces.
__device__ __forceinline__ uint4 load_once(const uint4* source) {
    uint4 value;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(source));
    return value;
}

// Fetches the line of a byte into the second-level cache, and waits for nothing.
__device__ __forceinline__ void prefetch(const void* byte) { asm volatile("prefetch.global.L2 [%0];" ::"l"(byte)); }

__device__ __forceinline__ float bits_to_float(uint32 bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32 float_to_bits(float value) { return __float_as_uint(value); }

#endif

// Bytes of a register, from low to high, as signed numbers. Each, with 128 added, becomes the last bits of the float 2^23:
// exact, and off the slow pipe that converts integers.
__device__ __forceinline__ float signed_byte(uint32 word, int byte) {
    return bits_to_float(__byte_perm(word ^ 0x80808080u, 0x4b000000u, 0x7440u | byte)) - 8388736.0f;
}
