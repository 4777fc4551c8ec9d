// Mahalanobis distances (`items.cuh`) of feature maps that are upsampled, concatenated and projected on the way:
// z = Pi x - mean. What the network does instead where the projection is folded into it; here to be compared with that.
//
// A block projects all its vectors before it scores them, since Pi is read whole by every block: tile by tile, some rows
// by some channels, into shared memory, where all vectors of the block share it. A thread adds up four rows for two
// vectors. Channels are added in their order, one after the other, whatever the tile.
#include "items.cuh"
#include "maps.cuh"

struct Projection {
    FeatureMaps maps;
    const void* matrix;  // (D / 8, d, 8), zeros after the last channel: eight channels of a row side by side
    int channels;        // D, of all maps
    int half;            // whether the matrix is fp16; else fp32
    int thread_columns;  // threads side by side over the vectors of a block
};

struct ProjectedDistances {
    Work work;
    Projection source;
};

constexpr int kPiece = 8;
constexpr int kRowsEach = 4;
constexpr int kVectorsEach = 2;
// A piece to each thread.
constexpr int kTileFloats = kMostThreads * kPiece;
// Of vectors: as many channels as the tile of Pi has, for at most 16 columns of threads.
constexpr int kMostTileVectors = 1024;

// Channels 8 * piece .. of a row of Pi.
__device__ __forceinline__ void read_piece(const Projection& source, int64 piece, float (&elements)[kPiece]) {
    const uint4* pieces = static_cast<const uint4*>(source.matrix);
    if (source.half) {
        const uint4 loaded[] = {pieces[piece]};
        Stored<uint16>::widen(loaded, 0, elements);
    } else {
        const uint4 loaded[] = {pieces[2 * piece], pieces[2 * piece + 1]};
        Stored<float>::widen(loaded, 0, elements);
    }
}

// Writes Pi x of the block's vectors to `embedded`, as `score` takes them.
template <int kVectors>
__device__ __forceinline__ void project(const Work& work, const Projection& source, int first_item, float* tiles,
                                        float* embedded) {
    const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * kWarp + threadIdx.x;
    const int dimension = work.factors.dimension, front = dimension % 2;
    const int columns = source.thread_columns, span = columns * kVectorsEach, held = span / kVectors;
    const int rows = kMostThreads / columns * kRowsEach, depth = kTileFloats / rows;
    float* matrix_tile = tiles;                // (depth, rows)
    float* vector_tile = tiles + kTileFloats;  // (depth, span)

    // Items first, so that neighbouring lanes read neighbouring positions.
    const int own = thread % span;
    const int2 vector = vector_of<kVectors>(work, first_item + own % held, own / held);
    const int y = vector.y / source.maps.width, x = vector.y % source.maps.width;
    // Nobody looks at the distance of a vector that is not there: any one will do.
    const int frame = vector.x < 0 ? 0 : vector.x;
    const int row = thread / columns * kRowsEach, pair = thread % columns * kVectorsEach;

    for (int first_row = 0; first_row < dimension; first_row += rows) {
        float sums[kRowsEach][kVectorsEach] = {};
        const FeatureMap* map = source.maps.maps;
        Corners corners(*map, frame, y, x);
        int start = 0;
        for (int first = 0; first < source.channels; first += depth) {
            const int tile_row = thread % rows, inner = thread / rows * kPiece;
            float elements[kPiece] = {};
            if (first_row + tile_row < dimension && first + inner < source.channels) {
                const int64 pieces = static_cast<int64>((first + inner) / kPiece) * dimension;
                read_piece(source, pieces + first_row + tile_row, elements);
            }
            for (int i = 0; i < kPiece; ++i) matrix_tile[(inner + i) * rows + tile_row] = elements[i];
            for (int c = thread / span; c < depth; c += kMostThreads / span) {
                const int channel = first + c;
                while (channel < source.channels && channel >= start + map->channels) {
                    start += map->channels;
                    corners = Corners(*++map, frame, y, x);
                }
                vector_tile[c * span + own] = channel < source.channels ? corners.at(channel - start) : 0;
            }
            __syncthreads();
            for (int c = 0; c < depth; ++c) {
#pragma unroll
                for (int i = 0; i < kRowsEach; ++i) {
#pragma unroll
                    for (int j = 0; j < kVectorsEach; ++j) {
                        sums[i][j] = fmaf(matrix_tile[c * rows + row + i], vector_tile[c * span + pair + j], sums[i][j]);
                    }
                }
            }
            __syncthreads();
        }
        for (int j = 0; j < kVectorsEach; ++j) {
            float* target = embedded + (pair + j) % held * spacing<kVectors>(dimension) + (pair + j) / held;
            for (int i = 0; i < kRowsEach && first_row + row + i < dimension; ++i) {
                target[(front + first_row + row + i) * kVectors] = sums[i][j];
            }
        }
    }
    __syncthreads();
}

template <class Element, int kVectors>
__device__ __forceinline__ void project_and_score(const Work& work, const Projection& source) {
    FLAWLINE_SHARED(float, tiles);
    const int held = source.thread_columns * kVectorsEach / kVectors, first_item = blockIdx.x * held;
    float* embedded = tiles + kTileFloats + kMostTileVectors;
    project<kVectors>(work, source, first_item, tiles, embedded);
    score<Element, kVectors>(work, first_item, held, embedded,
                             embedded + held * spacing<kVectors>(work.factors.dimension));
}

#define FLAWLINE_PROJECTED(element, name, vectors)                                                                       \
    FLAWLINE_RESIDENT_KERNEL(kMostThreads, kLeastBlocks, projected_distances_##name##_##vectors, ProjectedDistances) {   \
        project_and_score<element, vectors>(job.work, job.source);                                                       \
    }

FLAWLINE_PROJECTED(uint16, half, 1)
FLAWLINE_PROJECTED(uint16, half, 2)
FLAWLINE_PROJECTED(uint16, half, 4)
FLAWLINE_PROJECTED(uint16, half, 8)
FLAWLINE_PROJECTED(float, single, 1)
FLAWLINE_PROJECTED(float, single, 2)
FLAWLINE_PROJECTED(float, single, 4)
FLAWLINE_PROJECTED(float, single, 8)
FLAWLINE_PROJECTED(int8, byte, 1)
FLAWLINE_PROJECTED(int8, byte, 2)
FLAWLINE_PROJECTED(int8, byte, 4)
FLAWLINE_PROJECTED(int8, byte, 8)
