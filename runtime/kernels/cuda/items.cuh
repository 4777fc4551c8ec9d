// The work is a list of items: a Gaussian, and up to `kVectors` vectors that are scored against it while its factor is
// read once: the frames of a batch where each position has a Gaussian of its own, neighbouring positions where they share
// one. A block works on `blockDim.z` items at a time, `blockDim.y` warps on each. Their vectors lie in shared memory, are
// centred there, and multiplied by the factor (`whitening.cuh`). The nearest component counts.
//
// Sums are taken in an order that depends on the dimension alone, so that a vector has the same distance, bit for bit,
// whatever is scored beside it.
#pragma once

#include "whitening.cuh"

constexpr int kMostThreads = 256;

// Registers for two blocks on a multiprocessor, so that one reads while the other exchanges sums.
constexpr int kLeastBlocks = 2;

// All in one launch: what is scored.
struct Work {
    Factors factors;
    const float* means;    // (G, K, d)
    const float* scales;   // (G, K)
    const int* gaussians;  // (items,)
    const int2* vectors;   // (items, kVectors): frame and output; a negative frame is none
    float* distances;      // (frames, outputs)
    int items;
    int components;        // K
    int outputs;           // per frame
    int frames;            // vectors of later ones are left out
    int woodbury;          // scale * sqrt(||z||^2 - ||R z||^2) instead of scale * ||W z||
};

// Vector `n` of an item; frame -1 and output 0 if there is none.
template <int kVectors>
__device__ __forceinline__ int2 vector_of(const Work& work, int item, int n) {
    if (item >= work.items) return make_int2(-1, 0);
    const int2 vector = work.vectors[item * kVectors + n];
    return vector.x >= 0 && vector.x < work.frames ? vector : make_int2(-1, 0);
}

// Floats from the vectors of an item in shared memory, (columns, kVectors), to those of the next: four more than they are,
// so that items lie in different banks and columns stay aligned.
template <int kVectors>
__device__ __forceinline__ int spacing(int dimension) {
    return even(dimension) * kVectors + 4;
}

// Nearest of two squared distances; NaN wins, and once there it stays.
__device__ __forceinline__ float nearer(float squared, float nearest) {
    return squared < nearest || squared != squared ? squared : nearest;
}

// Scores `held` items from `first_item` on, a multiple of `blockDim.z`, whose vectors all threads see in `embedded`.
// The `rest` of shared memory holds centred vectors, where several components need the embedded ones, and partial sums.
template <class Element, int kVectors>
__device__ __forceinline__ void score(const Work& work, int first_item, int held, float* embedded, float* rest) {
    const int lane = threadIdx.x, warp = threadIdx.y, slot = threadIdx.z;
    const int warps = blockDim.y, slots = blockDim.z;
    const int dimension = work.factors.dimension, front = dimension % 2;
    const int size = spacing<kVectors>(dimension);
    const bool copied = work.components > 1;
    float* sums = (copied ? rest + slots * size : rest) + slot * warps * 2 * kVectors;

    for (int place = slot; place < held; place += slots) {
        const int item = first_item + place;
        const bool busy = item < work.items;
        const int64 gaussian = busy ? work.gaussians[item] : 0;
        const float* original = embedded + place * size;
        float* z = copied ? rest + slot * size : embedded + place * size;
        float nearest = bits_to_float(0x7f800000u);
        for (int k = 0; k < work.components; ++k) {
            const int64 component = gaussian * work.components + k;
            const float* mean = work.means + component * dimension;
            for (int i = warp * kWarp + lane; i < dimension * kVectors; i += warps * kWarp) {
                z[front * kVectors + i] = original[front * kVectors + i] - mean[i / kVectors];
            }
            if (front && warp == 0 && lane < kVectors) z[lane] = 0;
            __syncthreads();

            const auto* columns = reinterpret_cast<const Column<kVectors>*>(z);
            const float norm = squared_norms<Element>(work.factors, component, warp, warps, lane, columns);
            float whole = 0;
            if (work.woodbury) {
                float squares[kVectors] = {};
                for (int c = front + warp * kWarp + lane; c < even(dimension); c += warps * kWarp) {
#pragma unroll
                    for (int n = 0; n < kVectors; ++n) squares[n] = fmaf(columns[c].of[n], columns[c].of[n], squares[n]);
                }
                whole = sum_of_groups(gather(lane, squares));
            }
            if (lane < kColumnLanes && lane % kSpread<kVectors> == 0) {
                float* own = sums + warp * 2 * kVectors + lane / kSpread<kVectors>;
                own[0] = norm;
                own[kVectors] = whole;
            }
            __syncthreads();

            if (warp == 0 && lane < kVectors) {
                float squared = 0, total = 0;
                for (int w = 0; w < warps; ++w) {
                    squared += sums[w * 2 * kVectors + lane];
                    total += sums[w * 2 * kVectors + kVectors + lane];
                }
                if (work.woodbury) {
                    squared = total - squared;
                    // Rounding may leave less than nothing. NaN stays NaN.
                    if (squared < 0) squared = 0;
                }
                const float scale = work.scales[component];
                nearest = nearer(squared * (scale * scale), nearest);
            }
        }
        if (warp == 0 && lane < kVectors) {
            const int2 vector = vector_of<kVectors>(work, item, lane);
            if (vector.x >= 0) {
                work.distances[static_cast<int64>(vector.x) * work.outputs + vector.y] = sqrtf(nearest);
            }
        }
    }
}
