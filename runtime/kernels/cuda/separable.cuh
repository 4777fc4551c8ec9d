// A filter of rows and columns with the same taps, tile by tile.
//
// A tile is read with its border into shared memory, filtered along its rows into a second array there, and along the
// columns of that into registers. Sums are taken in the order of the taps, whichever way they are taken.
#pragma once

#include "quads.cuh"

struct Filter {
    const float* taps;  // (2 radius + 1,)
    int radius;
};

// Pixels that a block filters. Each thread is left with `kOutputs` of them, below one another.
template <int kTileWidth, int kTileHeight, int kTileOutputs>
struct Tile {
    static constexpr int kWidth = kTileWidth, kHeight = kTileHeight, kOutputs = kTileOutputs;
    static constexpr int kThreads = kWidth * kHeight / kOutputs;
};

// Adds to sums[i] what the taps make of source[i * spacing], source[(i + 1) * spacing], ...; what they share is read once.
template <int kOutputs>
__device__ __forceinline__ void convolve(const float* source, int spacing, const float* taps, int count,
                                         float (&sums)[kOutputs]) {
    float window[kOutputs];
#pragma unroll
    for (int i = 1; i < kOutputs; ++i) window[i] = source[(i - 1) * spacing];
#pragma unroll kOutputs
    for (int k = 0; k < count; ++k) {
#pragma unroll
        for (int i = 1; i < kOutputs; ++i) window[i - 1] = window[i];
        window[kOutputs - 1] = source[(k + kOutputs - 1) * spacing];
        const float tap = taps[k];
#pragma unroll
        for (int i = 0; i < kOutputs; ++i) sums[i] = fmaf(tap, window[i], sums[i]);
    }
}

// Brings the taps into shared memory, in front of the tiles that are filtered with them.
template <class Shape>
__device__ __forceinline__ void load_taps(const Filter& filter, float* shared) {
    const int thread = threadIdx.y * Shape::kWidth + threadIdx.x;
    for (int k = thread; k < 2 * filter.radius + 1; k += Shape::kThreads) shared[k] = filter.taps[k];
}

// Filters the tile at (top, left) of a plane; further planes may follow. A plane has a value `at` every (y, x) that a tile
// reaches, and its `quad` reads four of a row at once where they lie in memory as that asks for.
template <class Shape, class Plane>
__device__ __forceinline__ void filter_tile(const Filter& filter, const Plane& plane, int top, int left, float* shared,
                                            float (&sums)[Shape::kOutputs]) {
    const int thread = threadIdx.y * Shape::kWidth + threadIdx.x;
    const int count = 2 * filter.radius + 1, rows = Shape::kHeight + 2 * filter.radius;
    // The border is widened to whole quads, which start where four floats do.
    const int margin = (filter.radius + kQuad - 1) / kQuad * kQuad;
    const int quads = (Shape::kWidth + 2 * margin) / kQuad;
    // One more than whole quads, so that the same column of 32 rows lies in 32 banks.
    const int pitch = quads * kQuad + 1, filtered_pitch = Shape::kWidth + 1;
    const float* taps = shared;
    float* pixels = shared + count;
    float* filtered = pixels + rows * pitch;

    // Eight quads of four rows to a warp: in memory 128 bytes side by side, here 32 banks.
    for (int i = thread; i < (rows + 3) / 4 * 4 * quads; i += Shape::kThreads) {
        const int row = i / (4 * quads) * 4 + i % 4, column = i / 4 % quads * kQuad;
        if (row >= rows) continue;
        const int y = top + row - filter.radius, x = left + column - margin;
        float values[kQuad];
        if (!plane.quad(y, x, values)) {
            for (int j = 0; j < kQuad; ++j) values[j] = plane.at(y, x + j);
        }
        for (int j = 0; j < kQuad; ++j) pixels[row * pitch + column + j] = values[j];
    }
    __syncthreads();

    for (int i = thread; i < rows * (Shape::kWidth / Shape::kOutputs); i += Shape::kThreads) {
        const int row = i % rows, column = i / rows * Shape::kOutputs;
        float across[Shape::kOutputs] = {};
        convolve(pixels + row * pitch + margin - filter.radius + column, 1, taps, count, across);
        for (int j = 0; j < Shape::kOutputs; ++j) filtered[row * filtered_pitch + column + j] = across[j];
    }
    __syncthreads();

    const int first = threadIdx.y * Shape::kOutputs;
    convolve(filtered + first * filtered_pitch + threadIdx.x, filtered_pitch, taps, count, sums);
}

// The same without shared memory, for filters that do not fit it: each thread filters all rows that its pixels need.
template <class Shape, class Plane>
__device__ __forceinline__ void filter_columns(const Filter& filter, const Plane& plane, int top, int left,
                                               float (&sums)[Shape::kOutputs]) {
    const int count = 2 * filter.radius + 1;
    const int x = left + threadIdx.x - filter.radius, y = top + threadIdx.y * Shape::kOutputs - filter.radius;
    for (int row = 0; row < Shape::kOutputs + 2 * filter.radius; ++row) {
        float across = 0;
        for (int k = 0; k < count; ++k) across = fmaf(filter.taps[k], plane.at(y + row, x + k), across);
#pragma unroll
        for (int i = 0; i < Shape::kOutputs; ++i) {
            const int k = row - i;
            if (k >= 0 && k < count) sums[i] = fmaf(filter.taps[k], across, sums[i]);
        }
    }
}
