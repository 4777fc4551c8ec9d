// Feature maps, read at the positions of a finer map.
#pragma once

#include "portable.cuh"

// Which pixels of a coarse axis make up one of the fine axis: low + weight * (high - low).
struct Axis {
    const int* low;
    const int* high;
    const float* weight;
};

struct FeatureMap {
    const float* data;  // (frames, channels, height, width)
    Axis rows;
    Axis columns;
    int channels;
    int height;
    int width;
};

constexpr int kMostMaps = 8;

struct FeatureMaps {
    FeatureMap maps[kMostMaps];
    int count;
    int width;  // of the fine map
};

// The four pixels of a feature map that make up a position of the fine map, and their weights.
struct Corners {
    const float* above;
    const float* below;
    int left;
    int right;
    float down;
    float across;
    int64 channel;  // floats from one channel to the next

    __device__ __forceinline__ Corners(const FeatureMap& map, int frame, int y, int x)
        : left(map.columns.low[x]),
          right(map.columns.high[x]),
          down(map.rows.weight[y]),
          across(map.columns.weight[x]),
          channel(static_cast<int64>(map.height) * map.width) {
        const float* data = map.data + frame * map.channels * channel;
        above = data + map.rows.low[y] * map.width;
        below = data + map.rows.high[y] * map.width;
    }

    __device__ __forceinline__ float at(int c) const {
        const int64 offset = c * channel;
        const float a = above[offset + left], b = above[offset + right];
        const float start = fmaf(down, below[offset + left] - a, a), end = fmaf(down, below[offset + right] - b, b);
        return fmaf(across, end - start, start);
    }
};
