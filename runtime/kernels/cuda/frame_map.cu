// Anomaly maps at the size of their frames, and what of them lies above a threshold.
#include "maps.cuh"
#include "quads.cuh"

struct FrameMap {
    const float* maps;   // (frames, height, width)
    Axis rows;           // of the frame's height
    Axis columns;        // of the frame's width
    float* out;          // (frames, frame_height, frame_width), or null
    uint8* mask;         // (frames, frame_height, frame_width): 255 above the threshold, or null
    float threshold;
    int height;
    int width;
    int frame_height;
    int frame_width;
};

// Pixels of a thread: side by side, so that they are written as sixteen bytes and as four; and below one another, so that
// the taps of its columns are read once.
constexpr int kAcross = kQuad, kDown = 8;

__device__ __forceinline__ void store_mask(const float (&values)[kAcross], int count, float threshold, uint8* target) {
    uint32 word = 0;
#pragma unroll
    for (int i = 0; i < kAcross; ++i) word |= values[i] > threshold ? 0xffu << (8 * i) : 0;
    if (count == kAcross && reinterpret_cast<uint64>(target) % 4 == 0) {
        *reinterpret_cast<uint32*>(target) = word;
        return;
    }
    for (int i = 0; i < count; ++i) target[i] = static_cast<uint8>(word >> (8 * i));
}

FLAWLINE_KERNEL(256, frame_map, FrameMap) {
    const int left = (blockIdx.x * blockDim.x + threadIdx.x) * kAcross;
    const int top = (blockIdx.y * blockDim.y + threadIdx.y) * kDown;
    const int count = min(kAcross, job.frame_width - left);
    if (count <= 0) return;
    const float* map = job.maps + static_cast<int64>(blockIdx.z) * job.height * job.width;
    int low[kAcross], high[kAcross];
    float weight[kAcross];
#pragma unroll
    for (int i = 0; i < kAcross; ++i) {
        const int x = min(left + i, job.frame_width - 1);
        low[i] = job.columns.low[x];
        high[i] = job.columns.high[x];
        weight[i] = job.columns.weight[x];
    }
    for (int y = top; y < min(top + kDown, job.frame_height); ++y) {
        const float* above = map + job.rows.low[y] * job.width;
        const float* below = map + job.rows.high[y] * job.width;
        const float down = job.rows.weight[y];
        float values[kAcross];
#pragma unroll
        for (int i = 0; i < kAcross; ++i) {
            const float start = fmaf(down, below[low[i]] - above[low[i]], above[low[i]]);
            const float end = fmaf(down, below[high[i]] - above[high[i]], above[high[i]]);
            values[i] = fmaf(weight[i], end - start, start);
        }
        const int64 pixel = (static_cast<int64>(blockIdx.z) * job.frame_height + y) * job.frame_width + left;
        if (job.out) store_quad(values, count, job.out + pixel);
        if (job.mask) store_mask(values, count, job.threshold, job.mask + pixel);
    }
}
