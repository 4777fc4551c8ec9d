// Mahalanobis distances, for any instruction set.
//
// An instruction set is a type with
//   Register        some columns of a block of eight rows: 8 * kColumns floats
//   kColumns        columns per register
//   kVectors        vectors that share a pass over a factor, a power of two up to kMostVectors
//   lifted_size(d)  floats that a lifted vector takes
//   lift            writes x - mean, after a zero if d is odd, in the form in which `multiplier` reads it
//   multiplier      the values that belong to the columns of a register
//   zero, load, fma on registers; fold: the sum over the columns of two registers, as eight rows
//
// The order of additions for a vector depends on d alone, never on the vectors beside it.
#pragma once

#include "kernels.h"
#include "lanes.h"

namespace flawline {
namespace {

// How far ahead of its use a factor is asked for, and into the second-level cache, since the first has too few buffers
// for what memory can deliver. Measured with factors in memory, d = 100, one thread, as a share of the fastest read: 2048
// bytes 0.80, 4096 (all requests of one set at once) 0.77, 5120 to 11584 0.86; past the caches (NTA) 0.33.
constexpr int64_t kPrefetchBytes = 6144;

template <class Element>
FLAWLINE_INLINE void prefetch(const Element* address) {
    __builtin_prefetch(reinterpret_cast<const char*>(address) + kPrefetchBytes, 0, 2);
}

FLAWLINE_INLINE void prefetch_vector(const float* vector, int64_t dimension) {
    for (int64_t i = 0; i < dimension; i += 16) __builtin_prefetch(vector + i, 0, 2);
}

// ||W z||^2 of N lifted vectors.
template <class Set, int N, class Element>
FLAWLINE_INLINE void squared_norms(const Element* factor, const float* lifted, int64_t dimension, float* norms) {
    using Register = typename Set::Register;
    const int64_t stride = Set::lifted_size(dimension);
    constexpr int64_t kStep = Set::kColumns;
    // Blocks end with the last row, and their columns are made even by a zero column in front.
    const int64_t most = dimension + dimension % 2;
    Lanes sums[N] = {};
    for (int64_t columns = (most - 1) % kBlockRows + 1; columns <= most; columns += kBlockRows) {
        Register even[N], odd[N];
        for (int n = 0; n < N; ++n) even[n] = odd[n] = Set::zero();
        int64_t column = 0;
        for (; column + 2 * kStep <= columns; column += 2 * kStep, factor += 2 * kStep * kBlockRows) {
            prefetch(factor);
            const Register w0 = Set::load(factor);
            const Register w1 = Set::load(factor + kStep * kBlockRows);
            for (int n = 0; n < N; ++n) {
                even[n] = Set::fma(w0, Set::multiplier(lifted + n * stride, column), even[n]);
                odd[n] = Set::fma(w1, Set::multiplier(lifted + n * stride, column + kStep), odd[n]);
            }
        }
        // The number of columns is even: registers of one column leave no rest, those of two may leave a whole one.
        if (kStep == 2 && column < columns) {
            const Register w = Set::load(factor);
            for (int n = 0; n < N; ++n) {
                even[n] = Set::fma(w, Set::multiplier(lifted + n * stride, column), even[n]);
            }
            factor += kStep * kBlockRows;
        }
        for (int n = 0; n < N; ++n) {
            const Lanes rows = Set::fold(even[n], odd[n]);
            sums[n] += rows * rows;
        }
    }
    for (int n = 0; n < N; ++n) norms[n] = sum_lanes(sums[n]);
}

template <class Set, int N, class Element>
void score(const Gaussians& gaussians, int64_t gaussian, const float* const* vectors, float* const* outputs,
           float* lifted) {
    const int64_t d = gaussians.dimension;
    float nearest[N];
    for (int n = 0; n < N; ++n) nearest[n] = __builtin_inff();
    for (int64_t k = 0; k < gaussians.components; ++k) {
        const int64_t component = gaussian * gaussians.components + k;
        const Element* factor = static_cast<const Element*>(gaussians.factors) + component * gaussians.packed;
        for (int n = 0; n < N; ++n) {
            Set::lift(vectors[n], gaussians.means + component * d, d, lifted + n * Set::lifted_size(d));
        }
        float norms[N];
        squared_norms<Set, N>(factor, lifted, d, norms);
        const float squared_scale = gaussians.scales[component] * gaussians.scales[component];
        for (int n = 0; n < N; ++n) {
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
    const auto run = gaussians.half ? distances_of<Set, uint16_t> : distances_of<Set, float>;
    run(gaussians, vectors, order, count, scratch, out, out_stride);
}

template <class Set>
int64_t distances_scratch(int64_t dimension) {
    return Set::kVectors * Set::lifted_size(dimension);
}

}  // namespace
}  // namespace flawline
