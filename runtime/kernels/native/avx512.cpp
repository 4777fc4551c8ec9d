// AVX-512 (F, BW, DQ, VL): two columns of eight rows per register.
#include <immintrin.h>

#include "distances.h"
#include "maps.h"

namespace flawline {
namespace {

struct Avx512 {
    using Register = __m512;
    static constexpr int kColumns = 2;
    static constexpr int kVectors = 8;

    // Each value eight times, so that the multiplier of two columns is one load.
    static int64_t lifted_size(int64_t dimension) { return (dimension + 15) / 16 * 16 * kBlockRows; }

    static FLAWLINE_INLINE void lift(const float* x, const float* mean, int64_t dimension, float* lifted) {
        // Of an odd dimension, the first lane is the zero in front: nothing is read for a lane that is masked out.
        unsigned mask = dimension % 2 ? 0xFFFE : 0xFFFF;
        for (int64_t i = -(dimension % 2); i < dimension; i += 16, lifted += 16 * kBlockRows, mask = 0xFFFF) {
            if (dimension - i < 16) mask &= (1u << (dimension - i)) - 1;
            const __m512 centred = _mm512_sub_ps(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x + i),
                                                 _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), mean + i));
            __m512i column = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
            for (int pair = 0; pair < 8; ++pair) {
                _mm512_storeu_ps(lifted + 16 * pair, _mm512_permutexvar_ps(column, centred));
                column = _mm512_add_epi32(column, _mm512_set1_epi32(2));
            }
        }
    }

    static FLAWLINE_INLINE Register multiplier(const float* lifted, int64_t column) {
        return _mm512_loadu_ps(lifted + column * kBlockRows);
    }

    static FLAWLINE_INLINE Register zero() { return _mm512_setzero_ps(); }

    static FLAWLINE_INLINE Register load(const uint16_t* factor) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(factor)));
    }

    static FLAWLINE_INLINE Register load(const float* factor) { return _mm512_loadu_ps(factor); }

    static FLAWLINE_INLINE Register fma(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }

    static FLAWLINE_INLINE Lanes fold(Register a, Register b) {
        const __m512 sum = _mm512_add_ps(a, b);
        return _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
    }
};

constexpr Kernels kKernels = {
    "avx512", distances_scratch<Avx512>, distances<Avx512>, embed_row, smooth_row, checksum,
};

}  // namespace

const Kernels* avx512_kernels() { return &kKernels; }

}  // namespace flawline
