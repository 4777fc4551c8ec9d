// ||factor z||^2 for packed factors, as `flawline.runtime.kernels.packing` stores them.
//
// Four blocks of eight rows belong to a warp at a time, one to every eight lanes. The lanes of a block take its columns in
// turn, sixteen bytes each, so that every eight lanes read 128 bytes side by side. A lane adds up its columns for all
// eight rows and all vectors; then the eight lanes exchange sums until each holds one row of every vector, and squares
// until each holds one vector.
#pragma once

#include "portable.cuh"

constexpr int kBlockRows = 8;
constexpr int kColumnLanes = 8;
constexpr int kBlocksPerWarp = kWarp / kColumnLanes;

// Loads that a lane has under way at once: fewer where sums of many vectors take the registers.
template <int kVectors>
constexpr int kLoads = kVectors < 8 ? 4 : 2;

// How a type of element lies in pieces of sixteen bytes: `kColumns` columns in `kPieces` pieces, read together.
template <class Element>
struct Stored;

template <>
struct Stored<uint16> {
    static constexpr int kColumns = 1, kPieces = 1;
    static __device__ __forceinline__ void widen(const uint4 (&pieces)[1], int, float (&rows)[kBlockRows]) {
        const uint32 words[] = {pieces[0].x, pieces[0].y, pieces[0].z, pieces[0].w};
        for (int i = 0; i < 4; ++i) {
            rows[2 * i] = from_half(static_cast<uint16>(words[i]));
            rows[2 * i + 1] = from_half(static_cast<uint16>(words[i] >> 16));
        }
    }
};

template <>
struct Stored<float> {
    static constexpr int kColumns = 1, kPieces = 2;
    static __device__ __forceinline__ void widen(const uint4 (&pieces)[2], int, float (&rows)[kBlockRows]) {
        for (int i = 0; i < 2; ++i) {
            rows[4 * i] = bits_to_float(pieces[i].x);
            rows[4 * i + 1] = bits_to_float(pieces[i].y);
            rows[4 * i + 2] = bits_to_float(pieces[i].z);
            rows[4 * i + 3] = bits_to_float(pieces[i].w);
        }
    }
};

template <>
struct Stored<int8> {
    static constexpr int kColumns = 2, kPieces = 1;
    static __device__ __forceinline__ void widen(const uint4 (&pieces)[1], int column, float (&rows)[kBlockRows]) {
        const uint32 low = column ? pieces[0].z : pieces[0].x, high = column ? pieces[0].w : pieces[0].y;
        for (int i = 0; i < 4; ++i) {
            rows[i] = signed_byte(low, i);
            rows[4 + i] = signed_byte(high, i);
        }
    }
};

// The factors of all Gaussians.
struct Factors {
    const void* elements;      // (G, K, packed)
    const uint16* row_scales;  // (G, K, rows in whole blocks) fp16; null unless the elements are int8
    int packed;
    int rows;       // of a factor, the last ones of a triangle
    int dimension;  // d
};

// What a column of a factor is multiplied with, in shared memory; aligned, so that it is read in one or two loads.
template <int kVectors>
struct alignas(kVectors < 4 ? 4 * kVectors : 16) Column {
    float of[kVectors];
};

// Columns of a factor, with the zero in front of an odd number of them.
__device__ __forceinline__ int even(int dimension) { return dimension + dimension % 2; }

__device__ __forceinline__ int blocks_of(int rows) { return (rows + kBlockRows - 1) / kBlockRows; }

// Adds to sums[vector][row] what each lane's columns of a block give.
template <class Element, int kVectors>
__device__ __forceinline__ void multiply(const Element* block, int columns, int lane,
                                         const Column<kVectors>* centred, float (&sums)[kVectors][kBlockRows]) {
    using Set = Stored<Element>;
    constexpr int kStride = kColumnLanes * Set::kColumns, kAtOnce = kLoads<kVectors>;
    const uint4* pieces = reinterpret_cast<const uint4*>(block);
    for (int first = lane * Set::kColumns; first < columns; first += kAtOnce * kStride) {
        uint4 loaded[kAtOnce][Set::kPieces];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int column = first + i * kStride;
#pragma unroll
            for (int piece = 0; piece < Set::kPieces; ++piece) {
                const uint4* source = pieces + column / Set::kColumns * Set::kPieces + piece;
                loaded[i][piece] = column < columns ? load_once(source) : make_uint4(0, 0, 0, 0);
            }
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
            const int column = first + i * kStride;
            if (column >= columns) break;
#pragma unroll
            for (int c = 0; c < Set::kColumns; ++c) {
                float rows[kBlockRows];
                Set::widen(loaded[i], c, rows);
                const Column<kVectors> z = centred[column + c];
#pragma unroll
                for (int n = 0; n < kVectors; ++n) {
#pragma unroll
                    for (int row = 0; row < kBlockRows; ++row) sums[n][row] = fmaf(rows[row], z.of[n], sums[n][row]);
                }
            }
        }
    }
}

// Lanes that are left with the same one of `kCount` numbers that were gathered.
template <int kCount>
constexpr int kSpread = kColumnLanes / kCount;

// Adds up `kCount` numbers over eight lanes, of which lane i is left with number i / kSpread<kCount>. While a lane has
// several numbers, it gives half of them away and takes the other half. The order of the sum is the same for any count.
template <int kCount, int kHalf = kColumnLanes / 2>
__device__ __forceinline__ float gather(int lane, const float (&numbers)[kCount]) {
    if constexpr (kHalf == 0) {
        return numbers[0];
    } else if constexpr (kCount == 1) {
        const float sum[] = {numbers[0] + __shfl_xor_sync(kAllLanes, numbers[0], kHalf)};
        return gather<1, kHalf / 2>(lane, sum);
    } else {
        const bool upper = lane & kHalf;
        float sums[kCount / 2];
#pragma unroll
        for (int i = 0; i < kCount / 2; ++i) {
            const float low = numbers[i], high = numbers[i + kCount / 2];
            sums[i] = (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, kHalf);
        }
        return gather<kCount / 2, kHalf / 2>(lane, sums);
    }
}

// Adds up what the four groups of eight lanes have.
__device__ __forceinline__ float sum_of_groups(float value) {
#pragma unroll
    for (int step = kColumnLanes; step < kWarp; step *= 2) value += __shfl_xor_sync(kAllLanes, value, step);
    return value;
}

constexpr int kLineBytes = 128;

// Bytes of a factor that are on their way before its vectors are ready: a line to each thread of a block.
constexpr int kAheadBytes = 256 * kLineBytes;

// Fetches what `squared_norms` reads first of a factor: its end, where the longest blocks of rows lie. Lines are shared by
// `threads`.
template <class Element>
__device__ __forceinline__ void fetch_ahead(const Factors& factors, int64 component, int thread, int threads) {
    const char* end = static_cast<const char*>(factors.elements) + (component + 1) * factors.packed * sizeof(Element);
    const int bytes = min(factors.packed * static_cast<int>(sizeof(Element)), kAheadBytes);
    for (int back = 1 + thread * kLineBytes; back <= bytes; back += threads * kLineBytes) prefetch(end - back);
}

// What a warp contributes to ||factor z||^2 of some vectors: every `warps`-th group of blocks, starting with the longest
// ones. Every eight lanes are left with the vectors as `gather` spreads them.
template <class Element, int kVectors>
__device__ __forceinline__ float squared_norms(const Factors& factors, int64 component, int warp, int warps, int lane,
                                               const Column<kVectors>* centred) {
    const Element* factor = static_cast<const Element*>(factors.elements) + component * factors.packed;
    const int blocks = blocks_of(factors.rows);
    const int least = even(factors.dimension) - (blocks - 1) * kBlockRows;
    const int groups = (blocks + kBlocksPerWarp - 1) / kBlocksPerWarp;
    float norm = 0;
    for (int group = warp; group < groups; group += warps) {
        const int block = blocks - (group + 1) * kBlocksPerWarp + lane / kColumnLanes;
        float sums[kVectors][kBlockRows] = {};
        uint16 scale = 0;
        if (block >= 0) {
            // Loaded before the factor and widened after it, so that nothing waits for it.
            if constexpr (sizeof(Element) == 1) {
                scale = factors.row_scales[(component * blocks + block) * kBlockRows + lane % kColumnLanes];
            }
            const int64 before = block * least + kBlockRows * (block * (block - 1) / 2);
            multiply<Element>(factor + before * kBlockRows, least + block * kBlockRows, lane % kColumnLanes, centred,
                              sums);
        }
        float squares[kVectors];
#pragma unroll
        for (int n = 0; n < kVectors; ++n) {
            float row = gather(lane, sums[n]);
            if constexpr (sizeof(Element) == 1) row *= from_half(scale);
            squares[n] = row * row;
        }
        norm += gather(lane, squares);
    }
    return sum_of_groups(norm);
}
