// NEON as every aarch64 has it: one column of eight rows in two registers.
#include <arm_neon.h>

#include "distances.h"
#include "maps.h"

namespace flawline {
namespace {

struct Neon {
    struct Register {
        float32x4_t low, high;
    };
    static constexpr int kColumns = 1;
    static constexpr int kVectors = 4;

    static int64_t lifted_size(int64_t dimension) { return (dimension + 15) / 16 * 16; }

    static FLAWLINE_INLINE void lift(const float* x, const float* mean, int64_t dimension, float* lifted) {
        if (dimension % 2) *lifted++ = 0;
        for (int64_t i = 0; i < dimension; ++i) lifted[i] = x[i] - mean[i];
    }

    static FLAWLINE_INLINE float multiplier(const float* lifted, int64_t column) { return lifted[column]; }

    static FLAWLINE_INLINE Register zero() { return {vdupq_n_f32(0), vdupq_n_f32(0)}; }

    static FLAWLINE_INLINE Register load(const uint16_t* factor) {
        const float16x8_t half = vreinterpretq_f16_u16(vld1q_u16(factor));
        return {vcvt_f32_f16(vget_low_f16(half)), vcvt_high_f32_f16(half)};
    }

    static FLAWLINE_INLINE Register load(const float* factor) { return {vld1q_f32(factor), vld1q_f32(factor + 4)}; }

    static FLAWLINE_INLINE Register fma(Register a, float b, Register c) {
        return {vfmaq_n_f32(c.low, a.low, b), vfmaq_n_f32(c.high, a.high, b)};
    }

    static FLAWLINE_INLINE Lanes fold(Register a, Register b) {
        const float32x4_t low = vaddq_f32(a.low, b.low), high = vaddq_f32(a.high, b.high);
        return Lanes{low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
    }
};

constexpr Kernels kKernels = {
    "neon", distances_scratch<Neon>, distances<Neon>, embed_row, smooth_row, checksum,
};

}  // namespace

const Kernels* neon_kernels() { return &kKernels; }

}  // namespace flawline
