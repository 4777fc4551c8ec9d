// Upsampling with sum over scales, and smoothing, row by row; and the checksum. The same source for every instruction set.
#pragma once

#include "kernels.h"
#include "lanes.h"

namespace flawline {
namespace {

// One row of a map, (d, width) with the rows of the channels far apart, between two of its source rows: (width, d).
FLAWLINE_INLINE void transpose_row(const FeatureMap& map, int64_t dimension, int64_t y, float* target) {
    const int64_t width = map.width, channel = map.height * map.width;
    const float* low = map.data + map.rows.low[y] * width;
    const float* high = map.data + map.rows.high[y] * width;
    const float weight = map.rows.weight[y];
    if (width < kLanes || dimension < kLanes) {
        for (int64_t c = 0; c < dimension; ++c) {
            for (int64_t x = 0; x < width; ++x) {
                const float value = low[c * channel + x];
                target[x * dimension + c] = value + weight * (high[c * channel + x] - value);
            }
        }
        return;
    }
    // The last tile of either axis is moved back to the border, over what its neighbour has done already.
    for (int64_t tile = 0; tile < dimension; tile += kLanes) {
        const int64_t c = tile + kLanes <= dimension ? tile : dimension - kLanes;
        for (int64_t start = 0; start < width; start += kLanes) {
            const int64_t x = start + kLanes <= width ? start : width - kLanes;
            Lanes rows[8];
            for (int i = 0; i < 8; ++i) {
                const int64_t offset = (c + i) * channel + x;
                rows[i] = load_lanes(low + offset);
                if (weight != 0) rows[i] = lerp(rows[i], load_lanes(high + offset), weight);
            }
            transpose(rows);
            for (int i = 0; i < 8; ++i) store_lanes(target + (x + i) * dimension + c, rows[i]);
        }
    }
}

// z = low + weight * (high - low), or added to it.
template <bool kAdd>
FLAWLINE_INLINE void lerp_pixel(const float* low, const float* high, float weight, int64_t dimension, float* z) {
    int64_t c = 0;
    for (; c + kLanes <= dimension; c += kLanes) {
        const Lanes value = lerp(load_lanes(low + c), load_lanes(high + c), weight);
        store_lanes(z + c, kAdd ? load_lanes(z + c) + value : value);
    }
    for (; c < dimension; ++c) {
        const float value = low[c] + weight * (high[c] - low[c]);
        z[c] = kAdd ? z[c] + value : value;
    }
}

void embed_row(const FeatureMap& map, int64_t dimension, int64_t y, int64_t width, bool add, float* scratch, float* z) {
    if (map.columns.identity && !add) {
        transpose_row(map, dimension, y, z);
        return;
    }
    transpose_row(map, dimension, y, scratch);
    for (int64_t x = 0; x < width; ++x, z += dimension) {
        const float* low = scratch + map.columns.low[x] * dimension;
        const float* high = scratch + map.columns.high[x] * dimension;
        if (add) {
            lerp_pixel<true>(low, high, map.columns.weight[x], dimension, z);
        } else {
            lerp_pixel<false>(low, high, map.columns.weight[x], dimension, z);
        }
    }
}

// target[x] = sum over k of taps[k] * source(k)[x]
template <class Source>
FLAWLINE_INLINE void filter_row(const float* taps, int64_t count, int64_t width, Source source, float* target) {
    int64_t x = 0;
    for (; x + kLanes <= width; x += kLanes) {
        Lanes sum = {};
        for (int64_t k = 0; k < count; ++k) sum += taps[k] * load_lanes(source(k) + x);
        store_lanes(target + x, sum);
    }
    for (; x < width; ++x) {
        float sum = 0;
        for (int64_t k = 0; k < count; ++k) sum += taps[k] * source(k)[x];
        target[x] = sum;
    }
}

void smooth_row(const Filter& filter, const float* map, int64_t y, int64_t width, float* scratch, float* out) {
    const int64_t count = 2 * filter.radius + 1;
    float* row = scratch + filter.radius;
    filter_row(filter.taps, count, width, [&](int64_t k) { return map + filter.rows[y + k] * width; }, row);
    for (int64_t i = 0; i < filter.radius; ++i) {
        scratch[i] = row[filter.columns[i]];
        row[width + i] = row[filter.columns[filter.radius + width + i]];
    }
    filter_row(filter.taps, count, width, [&](int64_t k) { return scratch + k; }, out);
}

typedef uint64_t Words __attribute__((vector_size(64)));
typedef uint64_t UnalignedWords __attribute__((vector_size(64), aligned(1), may_alias));

uint64_t checksum(const unsigned char* bytes, int64_t size) {
    constexpr int64_t kWide = 64, kUnroll = 4;
    Words sums[kUnroll] = {};
    int64_t i = 0;
    for (; i + kUnroll * kWide <= size; i += kUnroll * kWide) {
        for (int64_t u = 0; u < kUnroll; ++u) {
            sums[u] ^= *reinterpret_cast<const UnalignedWords*>(bytes + i + u * kWide);
            __builtin_prefetch(bytes + i + u * kWide + 2048);
        }
    }
    const Words words = (sums[0] ^ sums[1]) ^ (sums[2] ^ sums[3]);
    uint64_t sum = 0;
    for (int j = 0; j < 8; ++j) sum ^= words[j];
    for (; i < size; ++i) sum ^= static_cast<uint64_t>(bytes[i]) << (8 * (i % 8));
    return sum;
}

}  // namespace
}  // namespace flawline
