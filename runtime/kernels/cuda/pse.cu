// Proximally Sensitive Error: the square of the residual under a Gaussian, its maximum and its mean.
//
// Gudi and others, 2022, equations 3 and 4. Outside the image the residual is zero, as in a plain convolution.
#include "maxima.cuh"
#include "separable.cuh"

// How far apart values lie, in elements.
struct Strides {
    int64 frame;
    int64 channel;
    int row;
    int pixel;
};

// What a tile contributes to its frame.
struct alignas(8) Part {
    uint32 maximum;  // bits of a float that is not negative
    float sum;
};

struct ProximalError {
    const void* image;            // uint8 or float
    const float* reconstruction;
    Strides image_strides;
    Strides reconstruction_strides;
    Filter filter;
    float* map;                   // (frames, height, width)
    Part* parts;                  // (frames, tiles)
    uint32* finished;             // (frames,): tiles that are done; zero before the first launch and after each
    float* maxima;                // (frames,)
    float* means;                 // (frames,)
    int height;
    int width;
    int channels;
};

using ErrorTile = Tile<64, 32, 8>;

// Image less reconstruction, one channel of a frame; zero outside.
template <class Pixel>
struct Residual {
    const ProximalError& job;
    const Pixel* image;
    const float* reconstruction;

    __device__ __forceinline__ bool quad(int y, int x, float (&values)[kQuad]) const {
        if (y < 0 || y >= job.height || x < 0 || x + kQuad > job.width) return false;
        if (job.image_strides.pixel != 1 || job.reconstruction_strides.pixel != 1) return false;
        float reconstructed[kQuad];
        if (!load_quad(image + y * job.image_strides.row + x, values)) return false;
        if (!load_quad(reconstruction + y * job.reconstruction_strides.row + x, reconstructed)) return false;
#pragma unroll
        for (int i = 0; i < kQuad; ++i) values[i] -= reconstructed[i];
        return true;
    }

    __device__ __forceinline__ float at(int y, int x) const {
        if (y < 0 || y >= job.height || x < 0 || x >= job.width) return 0;
        const Strides &from = job.image_strides, &to = job.reconstruction_strides;
        return image[y * from.row + x * from.pixel] - reconstruction[y * to.row + x * to.pixel];
    }
};

__device__ __forceinline__ Part joined(Part one, Part other) {
    return {one.maximum > other.maximum ? one.maximum : other.maximum, one.sum + other.sum};
}

// What all threads of a block contribute; each of them gets it.
__device__ __forceinline__ Part joined_over_block(Part part, Part* shared) {
    constexpr int kWarps = ErrorTile::kThreads / kWarp;
    const int thread = threadIdx.y * ErrorTile::kWidth + threadIdx.x;
#pragma unroll
    for (int half = kWarp / 2; half; half /= 2) {
        const Part other{__shfl_xor_sync(kAllLanes, part.maximum, half), __shfl_xor_sync(kAllLanes, part.sum, half)};
        part = joined(part, other);
    }
    // What the memory held before may still be read until all are here.
    __syncthreads();
    if (thread % kWarp == 0) shared[thread / kWarp] = part;
    __syncthreads();
    Part whole = shared[0];
    for (int warp = 1; warp < kWarps; ++warp) whole = joined(whole, shared[warp]);
    return whole;
}

// Whichever block of a frame is the last joins the parts, in an order that does not depend on which one that is.
__device__ __forceinline__ void finish(const ProximalError& job, Part part, Part* shared) {
    const int thread = threadIdx.y * ErrorTile::kWidth + threadIdx.x;
    const int frame = blockIdx.z, tiles = gridDim.x * gridDim.y;
    volatile Part* parts = job.parts + static_cast<int64>(frame) * tiles;
    const Part tile = joined_over_block(part, shared);
    __syncthreads();
    if (thread == 0) {
        const int own = blockIdx.y * gridDim.x + blockIdx.x;
        parts[own].maximum = tile.maximum;
        parts[own].sum = tile.sum;
        __threadfence();
        shared[0].maximum = atomicAdd(job.finished + frame, 1u);
    }
    __syncthreads();
    if (static_cast<int>(shared[0].maximum) != tiles - 1) return;
    __threadfence();

    Part whole{0, 0};
    for (int i = thread; i < tiles; i += ErrorTile::kThreads) whole = joined(whole, {parts[i].maximum, parts[i].sum});
    whole = joined_over_block(whole, shared);
    if (thread == 0) {
        job.maxima[frame] = bits_to_float(whole.maximum);
        job.means[frame] = whole.sum / (static_cast<float>(job.height) * static_cast<float>(job.width));
        job.finished[frame] = 0;
    }
}

template <bool kShared, class Pixel>
__device__ __forceinline__ void proximal_error(const ProximalError& job) {
    FLAWLINE_SHARED(float, shared);
    const int left = blockIdx.x * ErrorTile::kWidth, top = blockIdx.y * ErrorTile::kHeight;
    const int64 frame = blockIdx.z;
    if constexpr (kShared) load_taps<ErrorTile>(job.filter, shared);
    float errors[ErrorTile::kOutputs] = {};
    for (int channel = 0; channel < job.channels; ++channel) {
        const Strides &from = job.image_strides, &to = job.reconstruction_strides;
        const Residual<Pixel> residual{
            job, static_cast<const Pixel*>(job.image) + frame * from.frame + channel * from.channel,
            job.reconstruction + frame * to.frame + channel * to.channel};
        float sums[ErrorTile::kOutputs] = {};
        if constexpr (kShared) {
            filter_tile<ErrorTile>(job.filter, residual, top, left, shared, sums);
        } else {
            filter_columns<ErrorTile>(job.filter, residual, top, left, sums);
        }
#pragma unroll
        for (int i = 0; i < ErrorTile::kOutputs; ++i) errors[i] = fmaf(sums[i], sums[i], errors[i]);
    }

    const int x = left + threadIdx.x, y = top + threadIdx.y * ErrorTile::kOutputs;
    float* map = job.map + frame * job.height * job.width;
    Part part{0, 0};
#pragma unroll
    for (int i = 0; i < ErrorTile::kOutputs; ++i) {
        if (x >= job.width || y + i >= job.height) break;
        const float error = errors[i] / job.channels;
        map[(y + i) * job.width + x] = error;
        part = joined(part, {ordered_bits(error), error});
    }
    finish(job, part, reinterpret_cast<Part*>(shared));
}

FLAWLINE_RESIDENT_KERNEL(ErrorTile::kThreads, 4, pse_tiles_single, ProximalError) { proximal_error<true, float>(job); }
FLAWLINE_RESIDENT_KERNEL(ErrorTile::kThreads, 4, pse_tiles_byte, ProximalError) { proximal_error<true, uint8>(job); }
FLAWLINE_RESIDENT_KERNEL(ErrorTile::kThreads, 4, pse_columns_single, ProximalError) { proximal_error<false, float>(job); }
FLAWLINE_RESIDENT_KERNEL(ErrorTile::kThreads, 4, pse_columns_byte, ProximalError) { proximal_error<false, uint8>(job); }
