// Divides the work among threads. Everything was checked before it comes here.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "aligned.h"
#include "kernels.h"
#include "pool.h"

namespace flawline {

// How a feature map of a given shape is resampled; FeatureMap without its data.
struct Resampling {
    int64_t height;
    int64_t width;
    Taps rows;
    Taps columns;
};

struct MapPlan {
    Gaussians gaussians;
    std::vector<Resampling> resamplings;
    int64_t height;
    int64_t width;
    int64_t group_rows;    // rows of the map whose embeddings are built before any of them is scored
    const int32_t* order;  // (height * width,): the outputs group by group, inside a group by Gaussian
    Filter filter;
    int64_t batch;
};

// Feature maps to anomaly maps and scores. All memory is allocated at construction.
class MapEngine {
public:
    MapEngine(const Kernels& kernels, MapPlan plan, int threads);

    // maps[s]: (frames, d, height_s, width_s); out: (frames, height, width); scores: (frames,).
    void run(const std::vector<const float*>& maps, int64_t frames, float* out, float* scores);

private:
    struct Scratch {
        AlignedFloats embeddings, row, centred;
    };

    void score_group(const std::vector<const float*>& maps, int64_t frames, int64_t group, Scratch& scratch,
                     float* distances) const;
    void finish_row(int64_t row, const float* distances, Scratch& scratch, float* out);

    const Kernels& kernels_;
    const MapPlan plan_;
    std::vector<Scratch> scratch_;
    AlignedFloats distances_;
    AlignedFloats row_maxima_;
    Pool pool_;
    std::mutex mutex_;
};

// out: (frames, height * width, d).
void embeddings(const Kernels& kernels, const std::vector<Resampling>& resamplings,
                const std::vector<const float*>& maps, int64_t frames, int64_t dimension, int64_t height, int64_t width,
                int threads, float* out);

// `order` holds all outputs, those of a Gaussian side by side; out: (frames, outputs).
void mahalanobis(const Kernels& kernels, const Gaussians& gaussians, const Vectors& vectors, const int32_t* order,
                 int64_t outputs, int threads, float* out);

// maps and out: (frames, height, width).
void smooth(const Kernels& kernels, const Filter& filter, const float* maps, int64_t frames, int64_t height,
            int64_t width, int threads, float* out);

uint64_t checksum(const Kernels& kernels, const unsigned char* bytes, int64_t size, int threads);

}  // namespace flawline
