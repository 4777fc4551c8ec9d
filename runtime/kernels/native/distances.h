// Mahalanobis distances, for any instruction set.
//
// An instruction set is a type with
//   Register    one or two columns of a block of eight rows
//   kColumns    that number
//   kVectors    vectors that share a pass over a factor, a power of two up to kMostVectors
//   load        the columns at an address, widened from the stored elements
//   multiplier  the values of a vector that belong to them, in the form that `fma` takes
//   kByteUnit   what a loaded int8 must be multiplied by
//   halves      eight values of fp16
//   zero, add, fma on registers
//   Sums<N>     of N vectors: squares of rows; `add` takes the two accumulators of a block, `total` the sum
//
// The order of additions for a vector depends on the sizes alone, never on the vectors beside it.
#pragma once

#include "kernels.h"
#include "lanes.h"

namespace flawline {
namespace {

// How far ahead of its use a factor is asked for, and into the second-level cache, since the first has too few buffers
// for what memory can deliver. Measured with factors in memory, d = 100, one thread, as a share of the fastest read: 2048
// bytes 0.80, 4096 (all requests of one set at once) 0.77, 5120 to 11584 0.86; past the caches (NTA) 0.33.
constexpr int64_t kPrefetchBytes = 6144;

constexpr int64_t kLineBytes = 64;

// Whether each row has a scale of its own.
template <class Element>
constexpr bool kScaled = sizeof(Element) == 1;

// Rows in whole blocks.
FLAWLINE_INLINE int64_t padded(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows * kBlockRows; }

// Asks for what lies ahead of some columns, once for each line of it.
template <int64_t kColumns, class Element>
FLAWLINE_INLINE void prefetch(const Element* block) {
    constexpr int64_t kBytes = kColumns * kBlockRows * static_cast<int64_t>(sizeof(Element));
    for (int64_t line = 0; line < kBytes; line += kLineBytes) {
        __builtin_prefetch(reinterpret_cast<const char*>(block) + kPrefetchBytes + line, 0, 2);
    }
}

// Where value i of a vector lies among N: they are centred tile by tile, so that inside a tile the addresses of all
// vectors differ by constants.
template <int N>
FLAWLINE_INLINE int64_t place(int64_t i) {
    return i / kTile * kTile * N + i % kTile;
}

template <class Value>
FLAWLINE_INLINE void prefetch_vector(const Value* vector, int64_t count) {
    constexpr int64_t kPerLine = kLineBytes / static_cast<int64_t>(sizeof(Value));
    for (int64_t i = 0; i < count; i += kPerLine) __builtin_prefetch(vector + i, 0, 2);
}

// Squares of the rows of N vectors, for an instruction set whose registers hold one column.
template <class Set, int N>
struct RowSums {
    Lanes sums[N] = {};

    FLAWLINE_INLINE void add(const typename Set::Register* even, const typename Set::Register* odd, Lanes scales) {
        for (int n = 0; n < N; ++n) {
            const Lanes rows = Set::lanes(Set::add(even[n], odd[n])) * scales;
            sums[n] += rows * rows;
        }
    }
    FLAWLINE_INLINE float total(int n) const { return sum_lanes(sums[n]); }
};

// What N vectors gather from the columns of a block: those of the registers of even and of odd number apart.
template <class Set, int N>
struct Products {
    typename Set::Register even[N], odd[N];

    FLAWLINE_INLINE Products() {
        for (int n = 0; n < N; ++n) even[n] = odd[n] = Set::zero();
    }

    template <class Element>
    FLAWLINE_INLINE void add_one(const Element* block, const float* centred) {
        const auto w = Set::load(block);
        for (int n = 0; n < N; ++n) even[n] = Set::fma(w, Set::multiplier(centred + n * kTile), even[n]);
    }

    template <class Element>
    FLAWLINE_INLINE void add_two(const Element* block, const float* centred) {
        const auto w0 = Set::load(block), w1 = Set::load(block + Set::kColumns * kBlockRows);
        for (int n = 0; n < N; ++n) {
            even[n] = Set::fma(w0, Set::multiplier(centred + n * kTile), even[n]);
            odd[n] = Set::fma(w1, Set::multiplier(centred + n * kTile + Set::kColumns), odd[n]);
        }
    }

    // A block of an even number of columns times the same columns of the vectors.
    template <class Element>
    FLAWLINE_INLINE void add(const Element* block, int64_t columns, const float* centred) {
        constexpr int64_t kStep = 2 * Set::kColumns;
        int64_t rest = columns;
        // Of one vector the tiles follow each other without gaps.
        for (; N > 1 && rest >= kTile; rest -= kTile, centred += N * kTile) {
            for (int64_t step = 0; step < kTile; step += kStep, block += kStep * kBlockRows) {
                prefetch<kStep>(block);
                add_two(block, centred + step);
            }
        }
        for (; rest >= kStep; rest -= kStep, block += kStep * kBlockRows, centred += kStep) {
            prefetch<kStep>(block);
            add_two(block, centred);
        }
        if (rest) add_one(block, centred);
    }
};

// ||factor z||^2 of N centred vectors z.
template <class Set, int N, class Element>
FLAWLINE_INLINE void squared_norms(const Element* factor, const uint16_t* row_scales, int64_t rows, int64_t dimension,
                                   const float* centred, float* norms) {
    // Blocks end with the last row, and their columns are made even by a zero column in front.
    const int64_t most = dimension + dimension % 2;
    typename Set::template Sums<N> sums;
    for (int64_t columns = most - padded(rows) + kBlockRows; columns <= most; columns += kBlockRows) {
        Products<Set, N> products;
        products.add(factor, columns, centred);
        factor += columns * kBlockRows;
        if constexpr (kScaled<Element>) {
            sums.add(products.even, products.odd, Set::halves(row_scales) * Set::kByteUnit);
            row_scales += kBlockRows;
        } else {
            sums.add(products.even, products.odd, Lanes{1, 1, 1, 1, 1, 1, 1, 1});
        }
    }
    for (int n = 0; n < N; ++n) norms[n] = sums.total(n);
}

// Writes x - mean as one vector of N, after a zero if the dimension is odd.
template <int N>
FLAWLINE_INLINE void centre(const float* x, const float* mean, int64_t dimension, float* centred) {
    const int64_t front = dimension % 2, size = dimension + front;
    int64_t i = 0;
    if (front) {
        centred[i++] = 0;
        for (; i < size && i < kLanes; ++i) centred[i] = x[i - 1] - mean[i - 1];
    }
    for (; i + kLanes <= size; i += kLanes) {
        store_lanes(centred + place<N>(i), load_lanes(x + i - front) - load_lanes(mean + i - front));
    }
    if (i + kHalfLanes <= size) {
        store_half_lanes(centred + place<N>(i), load_half_lanes(x + i - front) - load_half_lanes(mean + i - front));
        i += kHalfLanes;
    }
    for (; i < size; ++i) centred[place<N>(i)] = x[i - front] - mean[i - front];
}

// ||z||^2 of one of N centred vectors.
template <int N>
FLAWLINE_INLINE float squared_norm(const float* centred, int64_t dimension) {
    const int64_t size = dimension + dimension % 2;
    Lanes squares = {};
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const Lanes z = load_lanes(centred + place<N>(i));
        squares += z * z;
    }
    float rest = 0;
    for (; i < size; ++i) rest += centred[place<N>(i)] * centred[place<N>(i)];
    return sum_lanes(squares) + rest;
}

template <class Set, int N, class Element>
void score(const Gaussians& gaussians, int64_t gaussian, const float* const* vectors, float* const* outputs,
           float* centred) {
    const int64_t d = gaussians.dimension;
    float nearest[N];
    for (int n = 0; n < N; ++n) nearest[n] = __builtin_inff();
    for (int64_t k = 0; k < gaussians.components; ++k) {
        const int64_t component = gaussian * gaussians.components + k;
        const Element* factor = static_cast<const Element*>(gaussians.factors) + component * gaussians.packed;
        for (int n = 0; n < N; ++n) {
            centre<N>(vectors[n], gaussians.means + component * d, d, centred + n * kTile);
        }
        const uint16_t* row_scales = nullptr;
        if constexpr (kScaled<Element>) row_scales = gaussians.row_scales + component * padded(gaussians.rows);
        float norms[N];
        squared_norms<Set, N>(factor, row_scales, gaussians.rows, d, centred, norms);
        const float squared_scale = gaussians.scales[component] * gaussians.scales[component];
        for (int n = 0; n < N; ++n) {
            if (gaussians.woodbury) {
                norms[n] = squared_norm<N>(centred + n * kTile, d) - norms[n];
                // Rounding may leave less than nothing. NaN stays NaN.
                if (norms[n] < 0) norms[n] = 0;
            }
            const float squared = norms[n] * squared_scale;
            // NaN wins, and once there it stays.
            if (squared < nearest[n] || squared != squared) nearest[n] = squared;
        }
    }
    for (int n = 0; n < N; ++n) *outputs[n] = __builtin_sqrtf(nearest[n]);
}

template <class Set, class Element>
void distances_of(const Gaussians& gaussians, const Vectors& vectors, const int32_t* order, int64_t count,
                  float* scratch, float* out, int64_t out_stride) {
    const float* sources[kMostVectors];
    float* targets[kMostVectors];
    const int64_t factor_bytes = gaussians.components * gaussians.packed * static_cast<int64_t>(sizeof(Element));
    const int64_t ahead = 1 + kPrefetchBytes / factor_bytes;
    for (int64_t begin = 0, end; begin < count; begin = end) {
        const int32_t gaussian = gaussians.assignment[order[begin]];
        for (end = begin + 1; end < count && gaussians.assignment[order[end]] == gaussian;) ++end;
        if (begin + ahead < count) {
            const int64_t output = order[begin + ahead];
            const int64_t next = gaussians.assignment[output];
            prefetch_vector(gaussians.means + next * gaussians.components * gaussians.dimension, gaussians.dimension);
            prefetch_vector(vectors.data + (output - vectors.first) * vectors.output_stride, gaussians.dimension);
            if constexpr (kScaled<Element>) {
                const int64_t rows = padded(gaussians.rows);
                prefetch_vector(gaussians.row_scales + next * gaussians.components * rows, rows);
            }
        }
        int64_t position = begin, frame = 0;
        for (int64_t rest = (end - begin) * vectors.frames; rest > 0;) {
            int chunk = Set::kVectors;
            while (chunk > rest) chunk /= 2;
            rest -= chunk;
            for (int n = 0; n < chunk; ++n) {
                const int64_t output = order[position];
                sources[n] = vectors.data + frame * vectors.frame_stride +
                             (output - vectors.first) * vectors.output_stride;
                targets[n] = out + frame * out_stride + output;
                if (++frame == vectors.frames) {
                    frame = 0;
                    ++position;
                }
            }
            if constexpr (Set::kVectors >= 8) {
                if (chunk == 8) score<Set, 8, Element>(gaussians, gaussian, sources, targets, scratch);
            }
            if (chunk == 4) score<Set, 4, Element>(gaussians, gaussian, sources, targets, scratch);
            if (chunk == 2) score<Set, 2, Element>(gaussians, gaussian, sources, targets, scratch);
            if (chunk == 1) score<Set, 1, Element>(gaussians, gaussian, sources, targets, scratch);
        }
    }
}

template <class Set>
void distances(const Gaussians& gaussians, const Vectors& vectors, const int32_t* order, int64_t count, float* scratch,
               float* out, int64_t out_stride) {
    const auto run = [&](auto element) {
        distances_of<Set, decltype(element)>(gaussians, vectors, order, count, scratch, out, out_stride);
    };
    switch (gaussians.element) {
        case Element::kSingle: return run(float{});
        case Element::kHalf: return run(uint16_t{});
        case Element::kByte: return run(int8_t{});
    }
}

}  // namespace
}  // namespace flawline
