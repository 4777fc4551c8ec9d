#include "engine.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace flawline {
namespace {

FeatureMap frame_of(const Resampling& resampling, const float* maps, int64_t dimension, int64_t frame) {
    const int64_t size = dimension * resampling.height * resampling.width;
    return {maps + frame * size, resampling.height, resampling.width, resampling.rows, resampling.columns};
}

int64_t widest(const std::vector<Resampling>& resamplings) {
    int64_t width = 0;
    for (const Resampling& resampling : resamplings) width = std::max(width, resampling.width);
    return width;
}

// Row y of the embeddings of one frame: (width, d).
void embed(const Kernels& kernels, const std::vector<Resampling>& resamplings, const std::vector<const float*>& maps,
           int64_t frame, int64_t dimension, int64_t y, int64_t width, float* scratch, float* z) {
    for (std::size_t s = 0; s < resamplings.size(); ++s) {
        const FeatureMap map = frame_of(resamplings[s], maps[s], dimension, frame);
        kernels.embed_row(map, dimension, y, width, s > 0, scratch, z);
    }
}

// Floats that the centred vectors of one factor take: whole tiles, with room for a zero in front.
int64_t distances_scratch(int64_t dimension) { return (dimension + kTile) / kTile * kTile * kMostVectors; }

// The greatest of the values, NaN if there is one.
float maximum(const float* values, int64_t count) {
    float greatest = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < count; ++i) {
        if (values[i] > greatest || values[i] != values[i]) greatest = values[i];
    }
    return greatest;
}

}  // namespace

MapEngine::MapEngine(const Kernels& kernels, MapPlan plan, int threads)
    : kernels_(kernels),
      plan_(std::move(plan)),
      distances_(plan_.filter.radius ? plan_.batch * plan_.height * plan_.width : 0),
      row_maxima_(plan_.batch * plan_.height),
      pool_(threads) {
    const int64_t dimension = plan_.gaussians.dimension;
    const int64_t row = std::max(widest(plan_.resamplings) * dimension, plan_.width + 2 * plan_.filter.radius);
    scratch_.reserve(threads);
    for (int part = 0; part < threads; ++part) {
        scratch_.push_back({AlignedFloats(plan_.batch * plan_.group_rows * plan_.width * dimension), AlignedFloats(row),
                            AlignedFloats(distances_scratch(dimension))});
    }
}

void MapEngine::score_group(const std::vector<const float*>& maps, int64_t frames, int64_t group, Scratch& scratch,
                            float* distances) const {
    const int64_t dimension = plan_.gaussians.dimension, width = plan_.width;
    const int64_t first_row = group * plan_.group_rows;
    const int64_t last_row = std::min(first_row + plan_.group_rows, plan_.height);
    const int64_t frame_stride = plan_.group_rows * width * dimension;
    for (int64_t frame = 0; frame < frames; ++frame) {
        for (int64_t y = first_row; y < last_row; ++y) {
            float* z = scratch.embeddings.get() + frame * frame_stride + (y - first_row) * width * dimension;
            embed(kernels_, plan_.resamplings, maps, frame, dimension, y, width, scratch.row.get(), z);
        }
    }
    const int64_t first = first_row * width;
    const Vectors vectors = {scratch.embeddings.get(), frames, frame_stride, dimension, first};
    kernels_.distances(plan_.gaussians, vectors, plan_.order + first, (last_row - first_row) * width,
                       scratch.centred.get(), distances, plan_.height * width);
}

void MapEngine::finish_row(int64_t row, const float* distances, Scratch& scratch, float* out) {
    const int64_t frame = row / plan_.height, y = row % plan_.height;
    float* target = out + row * plan_.width;
    if (plan_.filter.radius) {
        const float* map = distances + frame * plan_.height * plan_.width;
        kernels_.smooth_row(plan_.filter, map, y, plan_.width, scratch.row.get(), target);
    }
    row_maxima_.get()[row] = maximum(target, plan_.width);
}

void MapEngine::run(const std::vector<const float*>& maps, int64_t frames, float* out, float* scores) {
    const std::lock_guard<std::mutex> lock(mutex_);
    float* distances = plan_.filter.radius ? distances_.get() : out;
    const int64_t groups = (plan_.height + plan_.group_rows - 1) / plan_.group_rows;
    Shares group_shares(groups, pool_.parts());
    pool_.run([&](int part) {
        for (int64_t group, end; group_shares.take(group, end);) {
            for (; group < end; ++group) score_group(maps, frames, group, scratch_[part], distances);
        }
    });
    // A second stage, because a smoothed row needs rows that other threads have scored.
    Shares row_shares(frames * plan_.height, pool_.parts());
    pool_.run([&](int part) {
        for (int64_t row, end; row_shares.take(row, end);) {
            for (; row < end; ++row) finish_row(row, distances, scratch_[part], out);
        }
    });
    for (int64_t frame = 0; frame < frames; ++frame) {
        scores[frame] = maximum(row_maxima_.get() + frame * plan_.height, plan_.height);
    }
}

void embeddings(const Kernels& kernels, const std::vector<Resampling>& resamplings,
                const std::vector<const float*>& maps, int64_t frames, int64_t dimension, int64_t height, int64_t width,
                int threads, float* out) {
    const int64_t scratch_size = widest(resamplings) * dimension;
    const AlignedFloats scratch(threads * scratch_size);
    Shares shares(frames * height, threads);
    shared_pool(threads).run([&](int part) {
        for (int64_t row, end; shares.take(row, end);) {
            for (; row < end; ++row) {
                embed(kernels, resamplings, maps, row / height, dimension, row % height, width,
                      scratch.get() + part * scratch_size, out + row * width * dimension);
            }
        }
    });
}

void mahalanobis(const Kernels& kernels, const Gaussians& gaussians, const Vectors& vectors, const int32_t* order,
                 int64_t outputs, int threads, float* out) {
    const int64_t scratch_size = distances_scratch(gaussians.dimension);
    const AlignedFloats scratch(threads * scratch_size);
    Shares shares(outputs, threads);
    shared_pool(threads).run([&](int part) {
        for (int64_t begin, end; shares.take(begin, end);) {
            kernels.distances(gaussians, vectors, order + begin, end - begin, scratch.get() + part * scratch_size, out,
                              outputs);
        }
    });
}

void smooth(const Kernels& kernels, const Filter& filter, const float* maps, int64_t frames, int64_t height,
            int64_t width, int threads, float* out) {
    const int64_t scratch_size = width + 2 * filter.radius;
    const AlignedFloats scratch(threads * scratch_size);
    Shares shares(frames * height, threads);
    shared_pool(threads).run([&](int part) {
        for (int64_t row, end; shares.take(row, end);) {
            for (; row < end; ++row) {
                kernels.smooth_row(filter, maps + row / height * height * width, row % height, width,
                                   scratch.get() + part * scratch_size, out + row * width);
            }
        }
    });
}

uint64_t checksum(const Kernels& kernels, const unsigned char* bytes, int64_t size, int threads) {
    std::vector<uint64_t> sums(threads);
    Shares shares(size, threads);
    shared_pool(threads).run([&](int part) {
        for (int64_t begin, end; shares.take(begin, end);) {
            sums[part] ^= kernels.checksum(bytes + begin, end - begin);
        }
    });
    uint64_t sum = 0;
    for (const uint64_t part : sums) sum ^= part;
    return sum;
}

}  // namespace flawline
