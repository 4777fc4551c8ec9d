// Mahalanobis distances (`items.cuh`): of vectors, and of feature maps that are upsampled and summed on the way.
//
// Layouts follow from the bytes that are under way at once, and await their measurement: four blocks on a multiprocessor
// where registers allow it; ends of factors fetched while vectors are embedded; and up to eight items of a map held by a
// block, where it scores fewer at a time, since lanes that read neighbouring positions share what a load brings.
#include "items.cuh"
#include "maps.cuh"

// Vectors as they are: (frames, outputs, d), or (frames, 1, d) with one for all outputs.
struct Vectors {
    const float* data;
    int64 frame_stride;
    int64 output_stride;
};

struct VectorDistances {
    Work work;
    Vectors source;
};

// Of `work.factors.dimension` channels each.
struct MapDistances {
    Work work;
    FeatureMaps source;
    int held;  // items of a block
};

// Writes channels first, first + step, ... of a vector, `apart` floats from each other.
__device__ __forceinline__ void embed(const Vectors& source, int2 vector, int first, int step, int dimension, int apart,
                                      float* target) {
    const float* data = source.data + vector.x * source.frame_stride + vector.y * source.output_stride;
    for (int c = first; c < dimension; c += step) target[c * apart] = data[c];
}

__device__ __forceinline__ void embed(const FeatureMaps& source, int2 vector, int first, int step, int dimension,
                                      int apart, float* target) {
    for (int i = 0; i < source.count; ++i) {
        const Corners corners(source.maps[i], vector.x, vector.y / source.width, vector.y % source.width);
        for (int c = first; c < dimension; c += step) {
            const float value = corners.at(c);
            target[c * apart] = i ? target[c * apart] + value : value;
        }
    }
}

template <class Element, int kVectors, class Source>
__device__ __forceinline__ void embed_and_score(const Work& work, const Source& source, int held) {
    FLAWLINE_SHARED(float, embedded);
    const int dimension = work.factors.dimension, first_item = blockIdx.x * held;
    // Of what is scored first, since the factors do not wait for the vectors.
    const int item = first_item + threadIdx.z;
    if (item < work.items) {
        const int64 gaussian = work.gaussians[item];
        fetch_ahead<Element>(work.factors, gaussian * work.components, threadIdx.y * kWarp + threadIdx.x,
                             blockDim.y * kWarp);
    }
    // Items first, so that neighbouring lanes read neighbouring positions.
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * kWarp + threadIdx.x;
    const int threads = blockDim.z * blockDim.y * kWarp;
    const int place = thread % held, n = thread / held % kVectors;
    const int first = thread / (held * kVectors), step = threads / (held * kVectors);
    float* target = embedded + place * spacing<kVectors>(dimension) + dimension % 2 * kVectors + n;
    const int2 vector = vector_of<kVectors>(work, first_item + place, n);
    // Nobody looks at the distance of a vector that is not there.
    if (vector.x >= 0) embed(source, vector, first, step, dimension, kVectors, target);
    __syncthreads();
    score<Element, kVectors>(work, first_item, held, embedded, embedded + held * spacing<kVectors>(dimension));
}

// More blocks, and thus loads under way, where sums and elements of single vectors leave the registers for them.
template <class Element, int kVectors>
constexpr int kResidentBlocks = kVectors == 1 && sizeof(Element) < 4 ? 2 * kLeastBlocks : kLeastBlocks;

#define FLAWLINE_DISTANCES(element, name, vectors)                                   \
    FLAWLINE_RESIDENT_KERNEL(kMostThreads, (kResidentBlocks<element, vectors>),      \
                             vector_distances_##name##_##vectors, VectorDistances) { \
        embed_and_score<element, vectors>(job.work, job.source, blockDim.z);         \
    }                                                                                \
    FLAWLINE_RESIDENT_KERNEL(kMostThreads, (kResidentBlocks<element, vectors>),      \
                             map_distances_##name##_##vectors, MapDistances) {       \
        embed_and_score<element, vectors>(job.work, job.source, job.held);           \
    }

FLAWLINE_DISTANCES(uint16, half, 1)
FLAWLINE_DISTANCES(uint16, half, 2)
FLAWLINE_DISTANCES(uint16, half, 4)
FLAWLINE_DISTANCES(uint16, half, 8)
FLAWLINE_DISTANCES(float, single, 1)
FLAWLINE_DISTANCES(float, single, 2)
FLAWLINE_DISTANCES(float, single, 4)
FLAWLINE_DISTANCES(float, single, 8)
FLAWLINE_DISTANCES(int8, byte, 1)
FLAWLINE_DISTANCES(int8, byte, 2)
FLAWLINE_DISTANCES(int8, byte, 4)
FLAWLINE_DISTANCES(int8, byte, 8)
