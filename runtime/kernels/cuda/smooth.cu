// Smoothing of anomaly maps, and the maximum of each: the score of its frame.
#include "maxima.cuh"
#include "separable.cuh"

struct Smooth {
    const float* maps;   // (frames, height, width), none negative
    float* out;          // (frames, height, width), memory of its own
    uint32* scores;      // (frames,): bits of the maxima, zero before the launch
    Filter filter;
    const int* rows;     // (height + 2 radius,): pixel that stands for each position of the axis with its border
    const int* columns;  // (width + 2 radius,)
    int height;
    int width;
};

using SmoothTile = Tile<32, 16, 4>;

// A map whose border is found in tables. Past the border, where only pixels that nobody asks for would need it, it is 0.
struct ReflectedMap {
    const Smooth& job;
    const float* map;

    __device__ __forceinline__ bool quad(int y, int x, float (&values)[kQuad]) const {
        if (x < 0 || x + kQuad > job.width || y >= job.height + job.filter.radius) return false;
        return load_quad(map + job.rows[y + job.filter.radius] * job.width + x, values);
    }

    __device__ __forceinline__ float at(int y, int x) const {
        const int row = y + job.filter.radius, column = x + job.filter.radius;
        if (row >= job.height + 2 * job.filter.radius || column < 0 || column >= job.width + 2 * job.filter.radius) {
            return 0;
        }
        return map[job.rows[row] * job.width + job.columns[column]];
    }
};

template <bool kShared>
__device__ __forceinline__ void smooth(const Smooth& job) {
    const int left = blockIdx.x * SmoothTile::kWidth, top = blockIdx.y * SmoothTile::kHeight;
    const int64 frame = static_cast<int64>(blockIdx.z) * job.height * job.width;
    const ReflectedMap map{job, job.maps + frame};
    float sums[SmoothTile::kOutputs] = {};
    if constexpr (kShared) {
        FLAWLINE_SHARED(float, shared);
        load_taps<SmoothTile>(job.filter, shared);
        filter_tile<SmoothTile>(job.filter, map, top, left, shared, sums);
    } else {
        filter_columns<SmoothTile>(job.filter, map, top, left, sums);
    }

    const int x = left + threadIdx.x, y = top + threadIdx.y * SmoothTile::kOutputs;
    uint32 largest = 0;
#pragma unroll
    for (int i = 0; i < SmoothTile::kOutputs; ++i) {
        if (x >= job.width || y + i >= job.height) break;
        job.out[frame + (y + i) * job.width + x] = sums[i];
        const uint32 bits = ordered_bits(sums[i]);
        largest = bits > largest ? bits : largest;
    }
    largest = largest_of_warp(largest);
    // A warp is a row of the tile: 32 columns.
    if (threadIdx.x == 0) atomicMax(job.scores + blockIdx.z, largest);
}

FLAWLINE_KERNEL(SmoothTile::kThreads, smooth_tiles, Smooth) { smooth<true>(job); }
FLAWLINE_KERNEL(SmoothTile::kThreads, smooth_columns, Smooth) { smooth<false>(job); }
