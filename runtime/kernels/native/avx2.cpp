// AVX2 with FMA and F16C: one column of eight rows per register.
#include <immintrin.h>

#include "distances.h"
#include "maps.h"
#include "pse.h"

namespace flawline {
namespace {

struct Avx2 {
    using Register = __m256;
    static constexpr int kColumns = 1;
    // Sixteen registers: two accumulators for each of four vectors, and what they are made of.
    static constexpr int kVectors = 4;

    template <int N>
    using Sums = RowSums<Avx2, N>;

    static FLAWLINE_INLINE Register zero() { return _mm256_setzero_ps(); }

    static FLAWLINE_INLINE Register multiplier(const float* values) { return _mm256_broadcast_ss(values); }

    static FLAWLINE_INLINE Register load(const float* column) { return _mm256_loadu_ps(column); }

    static FLAWLINE_INLINE Register load(const uint16_t* column) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(column)));
    }

    static FLAWLINE_INLINE Register load(const int8_t* column) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(column))));
    }

    static FLAWLINE_INLINE Register add(Register a, Register b) { return _mm256_add_ps(a, b); }

    static FLAWLINE_INLINE Register fma(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }

    static FLAWLINE_INLINE Lanes lanes(Register a) { return a; }

    static constexpr float kByteUnit = 1;

    static FLAWLINE_INLINE Lanes halves(const uint16_t* values) { return load(values); }
};

constexpr Kernels kKernels = {
    "avx2", distances<Avx2>, embed_row, smooth_row, proximal_error, checksum,
};

}  // namespace

const Kernels* avx2_kernels() { return &kKernels; }

}  // namespace flawline
