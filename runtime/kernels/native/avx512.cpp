// AVX-512 (F, BW, DQ, VL): two columns of eight rows per register.
#include <immintrin.h>

#include "distances.h"
#include "maps.h"
#include "pse.h"

namespace flawline {
namespace {

typedef long long Pair __attribute__((aligned(4), may_alias));

// Two columns of eight rows, stored one after the other, side by side row by row: the values of a vector that belong to
// them are then one broadcast of eight bytes.
FLAWLINE_INLINE __m512 interleave(__m512 columns) {
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15), columns);
}

struct Avx512 {
    using Register = __m512;
    static constexpr int kColumns = 2;
    static constexpr int kVectors = 8;

    template <int N>
    struct Sums {
        // The rows of two vectors in each.
        static constexpr int kPairs = (N + 1) / 2;
        __m512 sums[kPairs];

        FLAWLINE_INLINE Sums() {
            for (int pair = 0; pair < kPairs; ++pair) sums[pair] = _mm512_setzero_ps();
        }
        FLAWLINE_INLINE void add(const Register* even, const Register* odd, Lanes scales) {
            const __m512i first = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            const __m512i second = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            for (int pair = 0; pair < kPairs; ++pair) {
                const int a = 2 * pair, b = 2 * pair + 1 < N ? a + 1 : a;
                const __m512 low = _mm512_add_ps(even[a], odd[a]), high = _mm512_add_ps(even[b], odd[b]);
                __m512 rows = _mm512_add_ps(_mm512_permutex2var_ps(low, first, high),
                                            _mm512_permutex2var_ps(low, second, high));
                rows = _mm512_mul_ps(rows, _mm512_broadcast_f32x8(scales));
                sums[pair] = _mm512_fmadd_ps(rows, rows, sums[pair]);
            }
        }
        FLAWLINE_INLINE float total(int n) const {
            return sum_lanes(n % 2 ? _mm512_extractf32x8_ps(sums[n / 2], 1) : _mm512_castps512_ps256(sums[n / 2]));
        }
    };

    static FLAWLINE_INLINE Register zero() { return _mm512_setzero_ps(); }

    static FLAWLINE_INLINE Register multiplier(const float* values) {
        return _mm512_castsi512_ps(_mm512_set1_epi64(*reinterpret_cast<const Pair*>(values)));
    }

    static FLAWLINE_INLINE Register load(const float* columns) { return interleave(_mm512_loadu_ps(columns)); }

    static FLAWLINE_INLINE Register load(const uint16_t* columns) {
        return interleave(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns))));
    }

    // One shuffle interleaves the bytes and makes each the highest of an integer, which is then 2^24 times as large: a
    // power of two that the row's scale takes back.
    static FLAWLINE_INLINE Register load(const int8_t* columns) {
        const __m512i both = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(columns)));
        const __m512i rows = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
        // A byte of an index that is negative gives zero.
        const __m512i index = _mm512_or_si512(_mm512_slli_epi32(rows, 24), _mm512_set1_epi32(0x00808080));
        return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(both, index));
    }
    static constexpr float kByteUnit = 0x1p-24f;

    static FLAWLINE_INLINE Lanes halves(const uint16_t* values) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
    }

    static FLAWLINE_INLINE Register fma(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
};

constexpr Kernels kKernels = {
    "avx512", distances<Avx512>, embed_row, smooth_row, proximal_error, checksum,
};

}  // namespace

const Kernels* avx512_kernels() { return &kKernels; }

}  // namespace flawline
