// Upsampling with sum over scales, and smoothing, row by row; and the checksum. The same source for every instruction set.
#pragma once

#include "kernels.h"
#include "lanes.h"

namespace flawline {
namespace {

// One row of a map, (d, width) with the rows of the channels far apart, between two of its source rows: (width, d).
template <bool kBetween>
FLAWLINE_INLINE void transpose_row(const float* low, int64_t to_high, float weight, int64_t channel, int64_t width,
                                   int64_t dimension, float* target) {
    if (width < kLanes || dimension < kLanes) {
        for (int64_t c = 0; c < dimension; ++c) {
            for (int64_t x = 0; x < width; ++x) {
                const float* source = low + c * channel + x;
                target[x * dimension + c] = kBetween ? lerp(*source, source[to_high], weight) : *source;
            }
        }
        return;
    }
    // The last tile of either axis is moved back to the border, over what its neighbour has done already.
    for (int64_t tile = 0; tile < dimension; tile += kLanes) {
        const int64_t c = tile + kLanes <= dimension ? tile : dimension - kLanes;
        for (int64_t start = 0; start < width; start += kLanes) {
            const int64_t x = start + kLanes <= width ? start : width - kLanes;
            const float* source = low + c * channel + x;
            Lanes rows[8];
            for (int i = 0; i < 8; ++i, source += channel) {
                rows[i] = load_lanes(source);
                if (kBetween) rows[i] = lerp(rows[i], load_lanes(source + to_high), weight);
            }
            transpose(rows);
            float* column = target + x * dimension + c;
            for (int i = 0; i < 8; ++i, column += dimension) store_lanes(column, rows[i]);
        }
    }
}

FLAWLINE_INLINE void transpose_row(const FeatureMap& map, int64_t dimension, int64_t y, float* target) {
    const int64_t width = map.width, channel = map.height * map.width;
    const float* low = map.data + map.rows.low[y] * width;
    const int64_t to_high = (map.rows.high[y] - map.rows.low[y]) * width;
    const float weight = map.rows.weight[y];
    if (weight != 0) {
        transpose_row<true>(low, to_high, weight, channel, width, dimension, target);
    } else {
        transpose_row<false>(low, 0, 0, channel, width, dimension, target);
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
    if (c + kHalfLanes <= dimension) {
        const HalfLanes value = lerp(load_half_lanes(low + c), load_half_lanes(high + c), weight);
        store_half_lanes(z + c, kAdd ? load_half_lanes(z + c) + value : value);
        c += kHalfLanes;
    }
    for (; c < dimension; ++c) {
        const float value = lerp(low[c], high[c], weight);
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
