// Any processor: no instruction that the compiler's baseline does not have.
#include "distances.h"
#include "maps.h"
#include "pse.h"

namespace flawline {
namespace {

typedef uint16_t Halves __attribute__((vector_size(16)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(16), aligned(2), may_alias));
typedef int8_t UnalignedBytes __attribute__((vector_size(8), aligned(1), may_alias));
typedef uint32_t Bits __attribute__((vector_size(32)));

// IEEE binary16 to binary32, subnormals, infinities and NaN included.
FLAWLINE_INLINE Lanes widen(Halves halves) {
    const Bits bits = __builtin_convertvector(halves, Bits);
    const Bits magnitude = (bits & 0x7FFFu) << 13;
    const Lanes rebiased = reinterpret_cast<Lanes>(magnitude) * 0x1p112f;
    const Bits special = reinterpret_cast<Bits>((bits & 0x7C00u) == 0x7C00u) & 0x7F800000u;
    return reinterpret_cast<Lanes>(reinterpret_cast<Bits>(rebiased) | special | (bits & 0x8000u) << 16);
}

struct Generic {
    using Register = Lanes;
    static constexpr int kColumns = 1;
    static constexpr int kVectors = 4;

    template <int N>
    using Sums = RowSums<Generic, N>;

    static FLAWLINE_INLINE Register zero() { return Lanes{}; }

    static FLAWLINE_INLINE float multiplier(const float* values) { return *values; }

    static FLAWLINE_INLINE Register load(const float* column) { return load_lanes(column); }

    static FLAWLINE_INLINE Register load(const uint16_t* column) {
        return widen(*reinterpret_cast<const UnalignedHalves*>(column));
    }

    static FLAWLINE_INLINE Register load(const int8_t* column) {
        return __builtin_convertvector(*reinterpret_cast<const UnalignedBytes*>(column), Lanes);
    }

    static FLAWLINE_INLINE Register add(Register a, Register b) { return a + b; }


    static FLAWLINE_INLINE Register fma(Register a, float b, Register c) { return a * b + c; }

    static FLAWLINE_INLINE Lanes lanes(Register a) { return a; }

    static constexpr float kByteUnit = 1;

    static FLAWLINE_INLINE Lanes halves(const uint16_t* values) { return load(values); }
};

constexpr Kernels kKernels = {
    "generic", distances<Generic>, embed_row, smooth_row, proximal_error, checksum,
};

}  // namespace

const Kernels* generic_kernels() { return &kKernels; }

}  // namespace flawline
