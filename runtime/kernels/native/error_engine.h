// Divides the Proximally Sensitive Error among threads. Everything was checked before it comes here.
#pragma once

#include <mutex>
#include <vector>

#include "aligned.h"
#include "kernels.h"
#include "pool.h"

namespace flawline {

// Images and reconstructions to maps, maxima and means. All memory is allocated at construction.
class ErrorEngine {
public:
    // The plan without its tile and stride, which are chosen here; the pool must outlive the engine.
    ErrorEngine(const Kernels& kernels, ErrorPlan plan, int64_t batch, Pool& pool);

    // image and reconstruction: (frames, channels, height, width); map: (frames, height, width) or null; maxima and
    // means: (frames,).
    void run(const void* image, const float* reconstruction, int64_t frames, float* map, float* maxima, float* means);

private:
    struct Scratch {
        AlignedFloats floats;
        std::vector<const float*> rows;
    };

    ErrorScratch view(Scratch& scratch) const;
    void bands(const void* image, const float* reconstruction, int64_t begin, int64_t end, Scratch& scratch, float* map);

    const Kernels& kernels_;
    const ErrorPlan plan_;
    const int64_t band_rows_, bands_;  // rows of a band, bands of a frame
    std::vector<Scratch> scratch_;
    std::vector<RowError> rows_;
    Pool& pool_;
    std::mutex mutex_;
};

}  // namespace flawline
