// Frames, or tiles of them, at the size and in the layout of the network's input, as OpenCV resizes them.
//
// Bytes of a row that are needed as they are or as averages come into shared memory first, sixteen at a time wherever the
// row starts. Sums are taken in OpenCV's order and never contracted, so that they round as its sums do.
#include "portable.cuh"

// Where pixels come from and go to. Frames may overlap: they are rectangles at even spacing, as tiles of a web are.
struct Pixels {
    const uint8* source;  // channels side by side; first pixel of the first frame
    uint8* target;        // (frames, height, width, channels) or, in planes, (frames, channels, height, width)
    int64 frame_stride;   // bytes from frame to frame of the source
    int64 row_stride;     // bytes from row to row of it
    int source_width;
    int height;           // of the target
    int width;
    int channels;         // 1 or 3
    int planar;
};

// Pixel i of the resized axis is low_weight[i] * source[low[i]] + high_weight[i] * source[high[i]], in units of 1 / 2048.
struct Pairs {
    const int* low;
    const int* high;
    const int* low_weight;
    const int* high_weight;
};

// Pixel i of the resized axis is the sum of weights[j] * source[first[i] + j - starts[i]], j from starts[i] to starts[i + 1].
struct Runs {
    const int* first;
    const int* starts;
    const float* weights;

    __device__ __forceinline__ int end(int i) const { return first[i] + starts[i + 1] - starts[i]; }
};

struct Copy {
    Pixels pixels;
};

struct Interpolate {
    Pixels pixels;
    Pairs rows;
    Pairs columns;
};

struct Average {
    Pixels pixels;
    Runs rows;
    Runs columns;
    float scale;       // of the sums
    int half_up;       // halves are rounded up instead of to even
    int band;          // rows of the source that are in shared memory at once
    int pitch;         // bytes from one of them to the next, whole pieces of 16
};

constexpr int kPieceBytes = 16;
constexpr int kMostChannels = 3;
constexpr int kWarps = 8;

// Where a byte of a row lies in a piece of sixteen bytes.
__device__ __forceinline__ int place(const uint8* byte) {
    return static_cast<int>(reinterpret_cast<uint64>(byte) % kPieceBytes);
}

__device__ __forceinline__ const uint8* source_row(const Pixels& pixels, int y) {
    return pixels.source + blockIdx.z * pixels.frame_stride + y * pixels.row_stride;
}

__device__ __forceinline__ uint8* target_byte(const Pixels& pixels, int y, int x, int channel) {
    const int64 frame = static_cast<int64>(blockIdx.z) * pixels.height * pixels.width * pixels.channels;
    const int row = pixels.planar ? channel * pixels.height + y : y;
    const int column = pixels.planar ? x : x * pixels.channels + channel;
    return pixels.target + frame + static_cast<int64>(row) * pixels.width * (pixels.planar ? 1 : pixels.channels) + column;
}

// Copies bytes [first, end) of a row by one warp; the first lands at `place` in its piece, as it lies in the row. What
// else lies in their pieces comes along, as far as it belongs to the row.
__device__ __forceinline__ void stage(const uint8* row, int row_bytes, int first, int end, uint8* target) {
    const int start = first - place(row + first);
    for (int offset = start + threadIdx.x * kPieceBytes; offset < end; offset += kWarp * kPieceBytes) {
        uint8* piece = target + (offset - start);
        if (offset >= 0 && offset + kPieceBytes <= row_bytes) {
            *reinterpret_cast<uint4*>(piece) = load_once(reinterpret_cast<const uint4*>(row + offset));
        } else {
            for (int i = max(offset, 0); i < min(offset + kPieceBytes, row_bytes); ++i) piece[i - offset] = row[i];
        }
    }
}

// Each warp copies a part of a row, each lane four pixels of it.
constexpr int kLanePixels = 4;
constexpr int kCopyPixels = kWarp * kLanePixels;

__device__ __forceinline__ void copy(const Copy& job) {
    FLAWLINE_SHARED(uint8, shared);
    const Pixels& pixels = job.pixels;
    // Where the order of the bytes stays, they are one channel.
    const int channels = pixels.planar ? pixels.channels : 1;
    const int width = pixels.planar ? pixels.width : pixels.width * pixels.channels;
    const int y = blockIdx.y * kWarps + threadIdx.y, left = blockIdx.x * kCopyPixels;
    uint8* staged = shared + threadIdx.y * (kCopyPixels * channels + 2 * kPieceBytes);
    const uint8* row = source_row(pixels, min(y, pixels.height - 1));
    stage(row, width * channels, left * channels, min(left + kCopyPixels, width) * channels, staged);
    __syncwarp();

    const int x = left + threadIdx.x * kLanePixels, count = min(kLanePixels, width - x);
    if (y >= pixels.height || count <= 0) return;
    const uint8* bytes = staged + place(row + left * channels) + threadIdx.x * kLanePixels * channels;
    for (int channel = 0; channel < channels; ++channel) {
        uint8* target = pixels.planar ? target_byte(pixels, y, x, channel) : target_byte(pixels, y, 0, 0) + x;
        if (count == kLanePixels && reinterpret_cast<uint64>(target) % kLanePixels == 0) {
            uint32 word = 0;
            for (int i = 0; i < kLanePixels; ++i) word |= static_cast<uint32>(bytes[i * channels + channel]) << (8 * i);
            *reinterpret_cast<uint32*>(target) = word;
        } else {
            for (int i = 0; i < count; ++i) target[i] = bytes[i * channels + channel];
        }
    }
}

__device__ __forceinline__ void interpolate(const Interpolate& job) {
    const Pixels& pixels = job.pixels;
    const int x = blockIdx.x * kWarp + threadIdx.x, y = blockIdx.y * kWarps + threadIdx.y;
    if (x >= pixels.width || y >= pixels.height) return;
    const uint8* above = source_row(pixels, job.rows.low[y]);
    const uint8* below = source_row(pixels, job.rows.high[y]);
    const int low = job.columns.low[x] * pixels.channels, high = job.columns.high[x] * pixels.channels;
    const int low_weight = job.columns.low_weight[x], high_weight = job.columns.high_weight[x];
    for (int channel = 0; channel < pixels.channels; ++channel) {
        const int upper = above[low + channel] * low_weight + above[high + channel] * high_weight;
        const int lower = below[low + channel] * low_weight + below[high + channel] * high_weight;
        // Bits are dropped where OpenCV's vector code drops them, to work with 16 of them.
        const int quarters = (job.rows.low_weight[y] * (upper >> 4) >> 16) + (job.rows.high_weight[y] * (lower >> 4) >> 16);
        *target_byte(pixels, y, x, channel) = static_cast<uint8>((quarters + 2) >> 2);
    }
}

template <int kChannels>
__device__ __forceinline__ void average(const Average& job) {
    FLAWLINE_SHARED(uint8, shared);
    const Pixels& pixels = job.pixels;
    const int left = blockIdx.x * kWarp, top = blockIdx.y * kWarps;
    const int x = left + threadIdx.x, y = top + threadIdx.y;
    const bool inside = x < pixels.width && y < pixels.height;
    // What of the source the block averages.
    const int first_byte = job.columns.first[left] * kChannels;
    const int end_byte = job.columns.end(min(left + kWarp, pixels.width) - 1) * kChannels;
    const int end_row = job.rows.end(min(top + kWarps, pixels.height) - 1);

    float sums[kChannels] = {};
    for (int band = job.rows.first[top]; band < end_row; band += job.band) {
        const int band_end = min(band + job.band, end_row);
        for (int row = band + threadIdx.y; row < band_end; row += kWarps) {
            stage(source_row(pixels, row), pixels.source_width * kChannels, first_byte, end_byte,
                  shared + (row - band) * job.pitch);
        }
        __syncthreads();
        if (inside) {
            const int first = job.rows.first[y], columns = job.columns.starts[x + 1] - job.columns.starts[x];
            const float* weights = job.columns.weights + job.columns.starts[x];
            const int offset = job.columns.first[x] * kChannels - first_byte;
            for (int row = max(band, first); row < min(band_end, job.rows.end(y)); ++row) {
                const uint8* bytes =
                    shared + (row - band) * job.pitch + place(source_row(pixels, row) + first_byte) + offset;
                float across[kChannels] = {};
                for (int i = 0; i < columns; ++i) {
#pragma unroll
                    for (int channel = 0; channel < kChannels; ++channel) {
                        const float value = bytes[i * kChannels + channel];
                        across[channel] = __fadd_rn(across[channel], __fmul_rn(value, weights[i]));
                    }
                }
                const float weight = job.rows.weights[job.rows.starts[y] + row - first];
#pragma unroll
                for (int channel = 0; channel < kChannels; ++channel) {
                    sums[channel] = __fadd_rn(sums[channel], __fmul_rn(across[channel], weight));
                }
            }
        }
        __syncthreads();
    }
    if (!inside) return;
#pragma unroll
    for (int channel = 0; channel < kChannels; ++channel) {
        const float value = __fmul_rn(sums[channel], job.scale);
        const float rounded = job.half_up ? floorf(__fadd_rn(value, 0.5f)) : rintf(value);
        *target_byte(pixels, y, x, channel) = static_cast<uint8>(fminf(rounded, 255));
    }
}

FLAWLINE_KERNEL(kWarps * kWarp, preprocess_copy, Copy) { copy(job); }
FLAWLINE_KERNEL(kWarps * kWarp, preprocess_interpolate, Interpolate) { interpolate(job); }
FLAWLINE_KERNEL(kWarps * kWarp, preprocess_average, Average) {
    if (job.pixels.channels == 1) {
        average<1>(job);
    } else {
        average<kMostChannels>(job);
    }
}
