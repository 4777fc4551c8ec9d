// Proximally Sensitive Error, a band of rows at a time. The same source for every instruction set.
//
// Residuals are kept in a ring of rows, filtered down the ring two rows at a time, then along each of the two: images are
// read once, and nothing but the map is written. Down comes first, since then the squares, the maximum and the sum fall
// to the pass that waits for its loads, and the rows around a band cost a subtraction only.
#pragma once

#include "kernels.h"
#include "lanes.h"

namespace flawline {
namespace {

// Registers that are filled side by side, so that additions need not wait for each other.
constexpr int kDown = 2, kAlong = 4;
constexpr int64_t kColumns = kAlong * kLanes;
static_assert(kErrorBlock % kColumns == 0 && kColumns % (kDown * kLanes) == 0, "blocks are whole");

// Columns whose errors are added up in single precision.
constexpr int64_t kSummed = 1024;

template <class Pixel>
FLAWLINE_INLINE void subtract_row(const Pixel* __restrict image, const float* __restrict reconstruction, int64_t count,
                                  float* __restrict target) {
    for (int64_t x = 0; x < count; ++x) target[x] = image[x] - reconstruction[x];
}

// Two rows of an image that are subtracted next.
struct NextRows {
    const char* data;
    int64_t row_bytes;
    int64_t pixel_bytes;

    FLAWLINE_INLINE void prefetch(int64_t x) const {
        __builtin_prefetch(data + x * pixel_bytes, 0, 2);
        __builtin_prefetch(data + x * pixel_bytes + row_bytes, 0, 2);
    }
};

// Filters 2 radius + 2 rows down to two, up to a whole block behind the last column. Meanwhile it asks for the next rows of
// the image, as the pass along asks for those of the reconstruction: all at once they would wait for each other.
template <int kRadius>
void filter_down(const float* taps, int64_t any_radius, int64_t count, const float* const* rows, float* const* lines,
                 NextRows next) {
    const int64_t radius = kRadius ? kRadius : any_radius;
    float *upper = lines[0], *lower = lines[1];
    for (int64_t x = 0; x < count; x += kDown * kLanes) {
        next.prefetch(x);
        Lanes first[kDown] = {}, second[kDown] = {}, above[kDown], below[kDown];
        for (int i = 0; i < kDown; ++i) {
            above[i] = load_lanes(rows[0] + x + i * kLanes);
            below[i] = load_lanes(rows[2 * radius + 1] + x + i * kLanes);
        }
        // The second row takes with a tap what the first takes with the next one or took with the one before.
        for (int64_t k = 0; k < radius; ++k) {
            for (int i = 0; i < kDown; ++i) {
                const Lanes next_above = load_lanes(rows[k + 1] + x + i * kLanes);
                const Lanes next_below = load_lanes(rows[2 * radius - k] + x + i * kLanes);
                first[i] += taps[k] * (above[i] + next_below);
                second[i] += taps[k] * (next_above + below[i]);
                above[i] = next_above;
                below[i] = next_below;
            }
        }
        for (int i = 0; i < kDown; ++i) {
            store_lanes(upper + x + i * kLanes, first[i] + taps[radius] * above[i]);
            store_lanes(lower + x + i * kLanes, second[i] + taps[radius] * below[i]);
        }
    }
}

// Filters a block of a row, and squares what comes of it.
template <int kRadius>
FLAWLINE_INLINE void square_block(const float* taps, int64_t any_radius, const float* line, Lanes (&squares)[kAlong]) {
    const int64_t radius = kRadius ? kRadius : any_radius;
    Lanes sums[kAlong];
    for (int i = 0; i < kAlong; ++i) sums[i] = taps[radius] * load_lanes(line + radius + i * kLanes);
    for (int64_t k = 0; k < radius; ++k) {
        const float *left = line + k, *right = line + 2 * radius - k;
        for (int i = 0; i < kAlong; ++i) {
            sums[i] += taps[k] * (load_lanes(left + i * kLanes) + load_lanes(right + i * kLanes));
        }
    }
    for (int i = 0; i < kAlong; ++i) squares[i] = sums[i] * sums[i];
}

// Asks for what is subtracted next, a block of a row.
FLAWLINE_INLINE void prefetch_block(const float* next) {
    for (int64_t i = 0; i < kColumns; i += 2 * kLanes) __builtin_prefetch(next + i, 0, 2);
}

// The errors of a channel that is not the last, written to `sums` or added to it, up to a whole block behind the end.
void add_channel(const float* taps, int64_t radius, int64_t count, const float* line, bool first, const float* next,
                 float* sums) {
    for (int64_t x = 0; x < count; x += kColumns) {
        Lanes squares[kAlong];
        prefetch_block(next + x);
        square_block<0>(taps, radius, line + x, squares);
        for (int i = 0; i < kAlong; ++i) {
            float* sum = sums + x + i * kLanes;
            store_lanes(sum, first ? squares[i] : load_lanes(sum) + squares[i]);
        }
    }
}

// With the last channel the mean of all: written to `out`, and its maximum and its sum added to those of the row.
template <int kRadius, bool kOnly>
void finish_row(const float* taps, int64_t radius, int64_t begin, int64_t end, const float* line, const float* sums,
                float scale, const float* next, float* out, RowError& row) {
    Lanes greatest = {}, total = {};
    for (int64_t x = begin; x < end; x += kColumns) {
        Lanes errors[kAlong];
        prefetch_block(next + x);
        square_block<kRadius>(taps, radius, line + x, errors);
        for (int i = 0; i < kAlong && !kOnly; ++i) errors[i] = scale * (load_lanes(sums + x + i * kLanes) + errors[i]);
        if (x + kColumns <= end) {
            for (int i = 0; i < kAlong; ++i) store_lanes(out + x + i * kLanes, errors[i]);
        } else {
            float block[kColumns] = {};
            for (int i = 0; i < kAlong; ++i) store_lanes(block + i * kLanes, errors[i]);
            for (int64_t i = 0; i < kColumns; ++i) {
                if (x + i < end) {
                    out[x + i] = block[i];
                } else {
                    block[i] = 0;
                }
            }
            for (int i = 0; i < kAlong; ++i) errors[i] = load_lanes(block + i * kLanes);
        }
        for (int i = 0; i < kAlong; ++i) {
            greatest = errors[i] > greatest ? errors[i] : greatest;
            total += errors[i];
        }
    }
    for (int i = 0; i < kLanes; ++i) {
        if (greatest[i] > row.maximum) row.maximum = greatest[i];
    }
    row.sum += sum_lanes(total);
}

// The passes of one channel. With few taps, those of sigma below 4.5 px, their loops are unrolled; 0 takes any radius.
struct Passes {
    decltype(&filter_down<0>) down;
    decltype(&finish_row<0, true>) finish;
};

template <int kRadius>
constexpr Passes kPasses = {filter_down<kRadius>, finish_row<kRadius, true>};

constexpr int64_t kMostUnrolled = 8;
constexpr Passes kPassesByRadius[kMostUnrolled + 1] = {kPasses<0>, kPasses<1>, kPasses<2>, kPasses<3>, kPasses<4>,
                                                       kPasses<5>, kPasses<6>, kPasses<7>, kPasses<8>};

template <class Pixel>
void proximal_rows(const ErrorPlan& plan, const Pixel* image, const float* reconstruction, int64_t begin, int64_t end,
                   ErrorScratch scratch, float* map, RowError* rows) {
    const int64_t radius = plan.radius, ring = 2 * radius + 2, stride = plan.stride;
    const float scale = 1.0f / static_cast<float>(plan.channels);
    const Passes& passes = kPassesByRadius[radius <= kMostUnrolled ? radius : 0];
    const auto finish = plan.channels == 1 ? passes.finish : finish_row<0, false>;
    float* const lines[2] = {scratch.lines, scratch.lines + stride};
    float* const sums[2] = {scratch.sums, scratch.sums + stride};
    for (int64_t y = begin; y < end; ++y) rows[y] = {0, 0};
    for (int64_t left = 0; left < plan.width; left += plan.tile) {
        const int64_t count = left + plan.tile < plan.width ? plan.tile : plan.width - left;
        // Columns of the image under the filter; beyond them it sees zeros.
        const int64_t from = left > radius ? left - radius : 0;
        const int64_t to = left + count + radius < plan.width ? left + count + radius : plan.width;
        const int64_t front = from - left + radius, seen = to - from, under = count + 2 * radius;
        const auto subtract = [&](int64_t channel, int64_t y, float* target) {
            const bool inside = y >= 0 && y < plan.height;
            const int64_t first = inside ? front : under, last = inside ? front + seen : under;
            for (int64_t x = 0; x < first; ++x) target[x] = 0;
            for (int64_t x = last; x < under; ++x) target[x] = 0;
            const int64_t at = (channel * plan.height + y) * plan.width + from;
            if (inside) subtract_row(image + at, reconstruction + at, seen, target + front);
        };
        for (int64_t channel = 0; channel < plan.channels; ++channel) {
            float* target = scratch.ring + channel * ring * stride;
            for (int64_t y = begin - radius; y < begin + radius; ++y, target += stride) subtract(channel, y, target);
        }
        // The place in the ring of the first row under the filter.
        int64_t top = 0;
        for (int64_t y = begin; y < end; y += 2, top = top + 2 < ring ? top + 2 : 0) {
            // What is not asked for goes where it does no harm.
            float* out[2] = {sums[0], sums[1]};
            for (int64_t i = 0; map && i < 2 && y + i < end; ++i) out[i] = map + (y + i) * plan.width + left;
            RowError errors[2] = {};
            for (int64_t channel = 0; channel < plan.channels; ++channel) {
                float* row = scratch.ring + (channel * ring + top) * stride;
                for (int64_t k = 0; k < ring; ++k, row += stride) {
                    if (top + k == ring) row -= ring * stride;
                    if (k >= 2 * radius) subtract(channel, y - radius + k, row);
                    scratch.rows[k] = row;
                }
                const int64_t next = (channel * plan.height + y + radius + 2) * plan.width + from;
                constexpr int64_t kBytes = sizeof(Pixel);
                passes.down(plan.taps, radius, under, scratch.rows, lines,
                            {reinterpret_cast<const char*>(image + next), plan.width * kBytes, kBytes});
                for (int i = 0; i < 2; ++i) {
                    const float* ahead = reconstruction + next + i * plan.width;
                    if (channel + 1 < plan.channels) {
                        add_channel(plan.taps, radius, count, lines[i], channel == 0, ahead, sums[i]);
                        continue;
                    }
                    for (int64_t x = 0; x < count; x += kSummed) {
                        const int64_t part = x + kSummed < count ? x + kSummed : count;
                        finish(plan.taps, radius, x, part, lines[i], sums[i], scale, ahead, out[i], errors[i]);
                    }
                }
            }
            for (int64_t i = 0; i < 2 && y + i < end; ++i) {
                if (errors[i].maximum > rows[y + i].maximum) rows[y + i].maximum = errors[i].maximum;
                rows[y + i].sum += errors[i].sum;
            }
        }
    }
}

void proximal_error(const ErrorPlan& plan, const void* image, const float* reconstruction, int64_t begin, int64_t end,
                    ErrorScratch scratch, float* map, RowError* rows) {
    if (plan.bytes) {
        const auto* bytes = static_cast<const uint8_t*>(image);
        proximal_rows(plan, bytes, reconstruction, begin, end, scratch, map, rows);
    } else {
        proximal_rows(plan, static_cast<const float*>(image), reconstruction, begin, end, scratch, map, rows);
    }
}

}  // namespace
}  // namespace flawline
