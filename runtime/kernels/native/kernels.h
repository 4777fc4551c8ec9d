// What every instruction set implements: plain data in, plain data out, one slice of the work at a time.
//
// The translation units of the instruction sets are compiled with flags that the rest of the module must not run with.
// They therefore share declarations only; what they define has internal linkage, and no standard template is
// instantiated in them: the linker would be free to keep the AVX-512 copy for everyone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace flawline {

// Most vectors that are scored against a factor while it is read once.
constexpr int kMostVectors = 8;

// Rows of a block of a packed factor.
constexpr int kBlockRows = 8;

// Columns of a tile of centred vectors: one cache line of each.
constexpr int kTile = 16;

// What factors are stored as: fp32, fp16, or int8 with a scale for each row.
enum class Element { kSingle, kHalf, kByte };

struct Gaussians {
    const float* means;          // (G, K, d)
    const void* factors;         // (G, K, packed)
    const uint16_t* row_scales;  // (G, K, rows in whole blocks), fp16; null unless the elements are bytes
    const float* scales;         // (G, K)
    const int32_t* assignment;   // (P,)
    int64_t components;
    int64_t dimension;
    int64_t packed;
    int64_t rows;  // of a factor, the last ones of a triangle: all, or fewer in the Woodbury form
    Element element;
    bool woodbury;  // distances are scale * sqrt(||z||^2 - ||R z||^2) instead of scale * ||W z||
};

// The vector of output p in frame b lies at data + b * frame_stride + (p - first) * output_stride.
struct Vectors {
    const float* data;
    int64_t frames;
    int64_t frame_stride;
    int64_t output_stride;
    int64_t first;
};

// Target i of a resampled axis is source[low[i]] + weight[i] * (source[high[i]] - source[low[i]]).
struct Taps {
    const int32_t* low;
    const int32_t* high;
    const float* weight;
    bool identity;
};

// A feature map of one frame, (d, height, width), and how it is resampled.
struct FeatureMap {
    const float* data;
    int64_t height;
    int64_t width;
    Taps rows;
    Taps columns;
};

// A separable filter: taps of odd number, and the source index for each position of an axis with its border.
struct Filter {
    const float* taps;
    int64_t radius;
    const int32_t* rows;    // (height + 2 radius,)
    const int32_t* columns; // (width + 2 radius,)
};

// Columns of a block of filtered residuals.
constexpr int64_t kErrorBlock = 32;

// Images (channels, height, width), their reconstructions, and the filter of the difference of both.
struct ErrorPlan {
    const float* taps;  // (2 radius + 1,), the same from either end
    int64_t radius;
    int64_t channels;
    int64_t height;
    int64_t width;
    int64_t tile;    // columns that are worked on at once, whole blocks
    int64_t stride;  // from one row of scratch to the next: at least tile + 2 radius, in whole blocks
    bool bytes;      // whether images are uint8 instead of float
};

// What a thread works in: rows of residuals with what lies beside the tile under the filter, each `stride` long.
struct ErrorScratch {
    float* ring;         // (channels, 2 radius + 2, stride): residuals
    float* lines;        // (2, stride): residuals filtered down
    float* sums;         // (2, stride): errors of some channels
    const float** rows;  // (2 radius + 2,)
};

struct RowError {
    float maximum;  // NaN left out
    double sum;     // NaN if there is one
};

struct Kernels {
    const char* name;

    // Distances of the outputs order[0 .. count), of which those that share a Gaussian lie side by side.
    // Output p of frame b is written to out[b * out_stride + p]. Scratch: kMostVectors times
    // the dimension and one more in whole tiles, 64-byte aligned.
    void (*distances)(const Gaussians& gaussians, const Vectors& vectors, const int32_t* order, int64_t count,
                      float* scratch, float* out, int64_t out_stride);

    // Row y of the upsampled map, channels last, (width, d): written to z, or added to it.
    // Scratch: map.width * dimension floats.
    void (*embed_row)(const FeatureMap& map, int64_t dimension, int64_t y, int64_t width, bool add, float* scratch,
                      float* z);

    // Row y of the filtered (height, width) map. Scratch: width + 2 radius floats.
    void (*smooth_row)(const Filter& filter, const float* map, int64_t y, int64_t width, float* scratch, float* out);

    // Rows [begin, end) of the error of one frame; `begin` is even, so that the same rows are always filtered together.
    // map: (height, width) or null; rows: (height,).
    void (*proximal_error)(const ErrorPlan& plan, const void* image, const float* reconstruction, int64_t begin,
                           int64_t end, ErrorScratch scratch, float* map, RowError* rows);

    // Exclusive or of all bytes, eight by eight: the fastest way to have read them.
    uint64_t (*checksum)(const unsigned char* bytes, int64_t size);
};

// Null where the instruction set is not compiled in.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* neon_kernels();
const Kernels* generic_kernels();

}  // namespace flawline
