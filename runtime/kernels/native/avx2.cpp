// AVX2 with FMA and F16C: one column of eight rows per register.
#include <immintrin.h>

#include "distances.h"
#include "maps.h"

namespace flawline {
namespace {

struct Avx2 {
    using Register = __m256;
    static constexpr int kColumns = 1;
    // Sixteen registers: two accumulators for each of four vectors, and what they are made of.
    static constexpr int kVectors = 4;

    static int64_t lifted_size(int64_t dimension) { return (dimension + 15) / 16 * 16; }

    static FLAWLINE_INLINE void lift(const float* x, const float* mean, int64_t dimension, float* lifted) {
        if (dimension % 2) *lifted++ = 0;
        for (int64_t i = 0; i < dimension; ++i) lifted[i] = x[i] - mean[i];
    }

    static FLAWLINE_INLINE Register multiplier(const float* lifted, int64_t column) {
        return _mm256_broadcast_ss(lifted + column);
    }

    static FLAWLINE_INLINE Register zero() { return _mm256_setzero_ps(); }

    static FLAWLINE_INLINE Register load(const uint16_t* factor) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(factor)));
    }

    static FLAWLINE_INLINE Register load(const float* factor) { return _mm256_loadu_ps(factor); }

    static FLAWLINE_INLINE Register fma(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }

    static FLAWLINE_INLINE Lanes fold(Register a, Register b) { return _mm256_add_ps(a, b); }
};

constexpr Kernels kKernels = {
    "avx2", distances_scratch<Avx2>, distances<Avx2>, embed_row, smooth_row, checksum,
};

}  // namespace

const Kernels* avx2_kernels() { return &kKernels; }

}  // namespace flawline
