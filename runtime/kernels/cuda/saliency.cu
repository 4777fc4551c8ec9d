// Anomaly maps of a saliency that the network gives, as it is or squared, and the maximum of each: the score of its frame.
#include "maxima.cuh"
#include "quads.cuh"

struct Saliency {
    const float* saliency;  // (frames, positions), none negative
    float* map;             // (frames, positions), memory of its own
    uint32* scores;         // (frames,): bits of the maxima, zero before the launch
    int positions;
    int squared;
};

FLAWLINE_KERNEL(256, saliency, Saliency) {
    const int start = (blockIdx.x * blockDim.x + threadIdx.x) * kQuad, count = min(kQuad, job.positions - start);
    const int64 first = static_cast<int64>(blockIdx.z) * job.positions + start;
    uint32 largest = 0;
    if (count > 0) {
        float values[kQuad];
        if (count < kQuad || !load_quad(job.saliency + first, values)) {
            for (int i = 0; i < count; ++i) values[i] = job.saliency[first + i];
        }
#pragma unroll
        for (int i = 0; i < kQuad; ++i) {
            if (i >= count) break;
            if (job.squared) values[i] *= values[i];
            const uint32 bits = ordered_bits(values[i]);
            largest = bits > largest ? bits : largest;
        }
        store_quad(values, count, job.map + first);
    }
    largest = largest_of_warp(largest);
    if (threadIdx.x % kWarp == 0) atomicMax(job.scores + blockIdx.z, largest);
}
