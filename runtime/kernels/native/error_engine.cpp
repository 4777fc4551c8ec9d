#include "error_engine.h"

#include <algorithm>
#include <limits>

namespace flawline {
namespace {

// Rings of half of a second-level cache of 384 KiB, but no narrow tiles: what is read a short row at a time comes slowly
// from memory.
constexpr int64_t kRingFloats = 48 * 1024, kLeastColumns = 512;

// Rows of a band, at least. Those of the filter's reach are filtered once more for each run of bands.
constexpr int64_t kBandRows = 32;

// Rows of scratch that lie a power of two apart would share a set of the cache.
constexpr int64_t kApart = 16;

int64_t in_blocks(int64_t count) { return (count + kErrorBlock - 1) / kErrorBlock * kErrorBlock; }

ErrorPlan planned(ErrorPlan plan) {
    const int64_t most = std::max(kLeastColumns, kRingFloats / (plan.channels * (2 * plan.radius + 2)));
    const int64_t tiles = (plan.width + most - 1) / most;
    plan.tile = in_blocks((plan.width + tiles - 1) / tiles);
    plan.stride = in_blocks(plan.tile + 2 * plan.radius) + kApart;
    return plan;
}

int64_t ring_floats(const ErrorPlan& plan) { return plan.channels * (2 * plan.radius + 2) * plan.stride; }

}  // namespace

ErrorEngine::ErrorEngine(const Kernels& kernels, ErrorPlan plan, int64_t batch, Pool& pool)
    : kernels_(kernels),
      plan_(planned(plan)),
      band_rows_(std::max(kBandRows, 4 * plan_.radius)),
      bands_((plan_.height + band_rows_ - 1) / band_rows_),
      rows_(batch * plan_.height),
      pool_(pool) {
    const int64_t floats = ring_floats(plan_) + 4 * plan_.stride;
    scratch_.reserve(pool.parts());
    for (int part = 0; part < pool.parts(); ++part) {
        scratch_.push_back({AlignedFloats(floats), std::vector<const float*>(2 * plan_.radius + 2)});
        // Columns that fill up a block are computed with, though never used.
        std::fill_n(scratch_.back().floats.get(), floats, 0.0f);
    }
}

ErrorScratch ErrorEngine::view(Scratch& scratch) const {
    float* ring = scratch.floats.get();
    float* lines = ring + ring_floats(plan_);
    return {ring, lines, lines + 2 * plan_.stride, scratch.rows.data()};
}

void ErrorEngine::bands(const void* image, const float* reconstruction, int64_t begin, int64_t end, Scratch& scratch,
                        float* map) {
    const int64_t pixels = plan_.height * plan_.width, values = plan_.channels * pixels;
    const int64_t pixel_bytes = plan_.bytes ? 1 : sizeof(float);
    // Bands of one frame follow each other without a new start.
    for (int64_t next; begin < end; begin = next) {
        const int64_t frame = begin / bands_;
        next = std::min(end, (frame + 1) * bands_);
        const int64_t first = (begin - frame * bands_) * band_rows_;
        const int64_t last = std::min((next - frame * bands_) * band_rows_, plan_.height);
        kernels_.proximal_error(plan_, static_cast<const char*>(image) + frame * values * pixel_bytes,
                                reconstruction + frame * values, first, last, view(scratch),
                                map ? map + frame * pixels : nullptr, rows_.data() + frame * plan_.height);
    }
}

void ErrorEngine::run(const void* image, const float* reconstruction, int64_t frames, float* map, float* maxima,
                      float* means) {
    const std::lock_guard<std::mutex> lock(mutex_);
    Shares shares(frames * bands_, pool_.parts());
    pool_.run([&](int part) {
        for (int64_t begin, end; shares.take(begin, end);) {
            bands(image, reconstruction, begin, end, scratch_[part], map);
        }
    });
    for (int64_t frame = 0; frame < frames; ++frame) {
        RowError whole{0, 0};
        for (int64_t y = 0; y < plan_.height; ++y) {
            const RowError& row = rows_[frame * plan_.height + y];
            whole.maximum = std::max(whole.maximum, row.maximum);
            whole.sum += row.sum;
        }
        // Of numbers that are not negative the sum is NaN only if one of them is.
        maxima[frame] = whole.sum != whole.sum ? std::numeric_limits<float>::quiet_NaN() : whole.maximum;
        means[frame] = static_cast<float>(whole.sum / static_cast<double>(plan_.height * plan_.width));
    }
}

}  // namespace flawline
