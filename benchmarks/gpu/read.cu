// Reads bytes once: what a kernel that has to read the same bytes can be held against.
#include "portable.cuh"

struct Read {
    const uint4* data;
    uint32* sums;  // one for each warp: the exclusive or of all words that it read, so that no read is left out
    int64 pieces;  // of sixteen bytes
};

// Neighbouring threads read neighbouring pieces; `kAtOnce` loads of a thread are under way together.
template <int kAtOnce>
__device__ __forceinline__ void read(const Read& job) {
    const int64 threads = static_cast<int64>(gridDim.x) * blockDim.x;
    const int64 thread = static_cast<int64>(blockIdx.x) * blockDim.x + threadIdx.x;
    uint32 sum = 0;
    for (int64 first = thread; first < job.pieces; first += kAtOnce * threads) {
        uint4 loaded[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int64 piece = first + i * threads;
            loaded[i] = piece < job.pieces ? load_once(job.data + piece) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) sum ^= loaded[i].x ^ loaded[i].y ^ loaded[i].z ^ loaded[i].w;
    }
#pragma unroll
    for (int half = kWarp / 2; half; half /= 2) sum ^= __shfl_xor_sync(kAllLanes, sum, half);
    if (threadIdx.x % kWarp == 0) job.sums[thread / kWarp] = sum;
}

#define FLAWLINE_READ(at_once) \
    FLAWLINE_KERNEL(256, read_##at_once, Read) { read<at_once>(job); }

FLAWLINE_READ(2)
FLAWLINE_READ(4)
FLAWLINE_READ(8)
