// NEON as every aarch64 has it: one column of eight rows in two registers.
#include <arm_neon.h>

#include "distances.h"
#include "maps.h"
#include "pse.h"

namespace flawline {
namespace {

struct Neon {
    struct Register {
        float32x4_t low, high;
    };
    static constexpr int kColumns = 1;
    static constexpr int kVectors = 4;

    template <int N>
    using Sums = RowSums<Neon, N>;

    static FLAWLINE_INLINE Register zero() { return {vdupq_n_f32(0), vdupq_n_f32(0)}; }

    static FLAWLINE_INLINE float multiplier(const float* values) { return *values; }

    static FLAWLINE_INLINE Register load(const float* column) { return {vld1q_f32(column), vld1q_f32(column + 4)}; }

    static FLAWLINE_INLINE Register load(const uint16_t* column) {
        const float16x8_t half = vreinterpretq_f16_u16(vld1q_u16(column));
        return {vcvt_f32_f16(vget_low_f16(half)), vcvt_high_f32_f16(half)};
    }

    static FLAWLINE_INLINE Register load(const int8_t* column) {
        const int16x8_t wide = vmovl_s8(vld1_s8(column));
        return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))};
    }

    static FLAWLINE_INLINE Register add(Register a, Register b) {
        return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
    }

    static FLAWLINE_INLINE Register fma(Register a, float b, Register c) {
        return {vfmaq_n_f32(c.low, a.low, b), vfmaq_n_f32(c.high, a.high, b)};
    }

    static FLAWLINE_INLINE Lanes lanes(Register a) {
        return Lanes{a.low[0], a.low[1], a.low[2], a.low[3], a.high[0], a.high[1], a.high[2], a.high[3]};
    }

    static constexpr float kByteUnit = 1;

    static FLAWLINE_INLINE Lanes halves(const uint16_t* values) { return lanes(load(values)); }
};

constexpr Kernels kKernels = {
    "neon", distances<Neon>, embed_row, smooth_row, proximal_error, checksum,
};

}  // namespace

const Kernels* neon_kernels() { return &kKernels; }

}  // namespace flawline
