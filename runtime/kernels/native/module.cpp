// The bindings. Python has checked shapes, dtypes and ranges; here arrays become pointers, and the GIL is released.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "engine.h"
#include "error_engine.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace flawline {
namespace {

template <class Type, int kAxes>
using Array = nb::ndarray<Type, nb::ndim<kAxes>, nb::c_contig, nb::device::cpu>;

using AxisTaps = std::tuple<Array<const int32_t, 1>, Array<const int32_t, 1>, Array<const float, 1>>;
using ResamplingArrays = std::tuple<int64_t, int64_t, AxisTaps, AxisTaps>;
using FilterArrays = std::tuple<Array<const float, 1>, Array<const int32_t, 1>, Array<const int32_t, 1>>;
// Means, factors, scales, assignment; scales of rows, empty unless the factors are bytes; rows; whether Woodbury.
using GaussianArrays =
    std::tuple<Array<const float, 3>, nb::ndarray<nb::ro, nb::ndim<3>, nb::c_contig, nb::device::cpu>,
               Array<const float, 2>, Array<const int32_t, 1>, Array<const uint16_t, 3>, int64_t, bool>;
using Images = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using FeatureMaps = std::vector<Array<const float, 4>>;

Element element_of(nb::dlpack::dtype dtype) {
    if (dtype == nb::dtype<int8_t>()) return Element::kByte;
    return dtype == nb::dtype<uint16_t>() ? Element::kHalf : Element::kSingle;
}

Gaussians view(const GaussianArrays& arrays) {
    const auto& [means, factors, scales, assignment, row_scales, rows, woodbury] = arrays;
    return {means.data(),
            factors.data(),
            row_scales.data(),
            scales.data(),
            assignment.data(),
            static_cast<int64_t>(means.shape(1)),
            static_cast<int64_t>(means.shape(2)),
            static_cast<int64_t>(factors.shape(2)),
            rows,
            element_of(factors.dtype()),
            woodbury};
}

Taps view(const AxisTaps& arrays, int64_t source) {
    const auto& [low, high, weight] = arrays;
    bool identity = static_cast<int64_t>(low.size()) == source;
    for (int64_t i = 0; identity && i < source; ++i) identity = low.data()[i] == i && weight.data()[i] == 0;
    return {low.data(), high.data(), weight.data(), identity};
}

std::vector<Resampling> view(const std::vector<ResamplingArrays>& arrays) {
    std::vector<Resampling> resamplings;
    for (const auto& [height, width, rows, columns] : arrays) {
        resamplings.push_back({height, width, view(rows, height), view(columns, width)});
    }
    return resamplings;
}

Filter view(const FilterArrays& arrays) {
    const auto& [taps, rows, columns] = arrays;
    return {taps.data(), static_cast<int64_t>(taps.size() / 2), rows.data(), columns.data()};
}

std::vector<const float*> view(const FeatureMaps& maps) {
    std::vector<const float*> pointers;
    for (const auto& map : maps) pointers.push_back(map.data());
    return pointers;
}

// Keeps the arrays alive that its engine points into.
class BoundMap {
public:
    BoundMap(const std::string& implementation, GaussianArrays gaussians, std::vector<ResamplingArrays> resamplings,
             FilterArrays filter, Array<const int32_t, 1> order, int64_t height, int64_t width, int64_t group_rows,
             int64_t batch, int threads)
        : gaussians_(std::move(gaussians)),
          resamplings_(std::move(resamplings)),
          filter_(std::move(filter)),
          order_(std::move(order)),
          engine_(kernels_named(implementation),
                  MapPlan{view(gaussians_), view(resamplings_), height, width, group_rows, order_.data(), view(filter_),
                          batch},
                  threads) {}

    void run(const FeatureMaps& maps, const Array<float, 3>& out, const Array<float, 1>& scores) {
        const std::vector<const float*> pointers = view(maps);
        const nb::gil_scoped_release release;
        engine_.run(pointers, static_cast<int64_t>(out.shape(0)), out.data(), scores.data());
    }

private:
    GaussianArrays gaussians_;
    std::vector<ResamplingArrays> resamplings_;
    FilterArrays filter_;
    Array<const int32_t, 1> order_;
    MapEngine engine_;
};

ErrorPlan error_plan(const Array<const float, 1>& taps, int64_t channels, int64_t height, int64_t width, bool bytes) {
    return {taps.data(), static_cast<int64_t>(taps.size() / 2), channels, height, width, 0, 0, bytes};
}

void run(ErrorEngine& engine, const Images& image, const Array<const float, 4>& reconstruction,
         const std::optional<Array<float, 3>>& map, const Array<float, 1>& maxima, const Array<float, 1>& means) {
    float* out = map ? map->data() : nullptr;
    const nb::gil_scoped_release release;
    engine.run(image.data(), reconstruction.data(), static_cast<int64_t>(image.shape(0)), out, maxima.data(),
               means.data());
}

// Keeps the taps alive, and threads of its own.
class BoundError {
public:
    BoundError(const std::string& implementation, Array<const float, 1> taps, bool bytes, int64_t channels,
               int64_t height, int64_t width, int64_t batch, int threads)
        : taps_(std::move(taps)),
          pool_(threads),
          engine_(kernels_named(implementation), error_plan(taps_, channels, height, width, bytes), batch, pool_) {}

    void run(const Images& image, const Array<const float, 4>& reconstruction,
             const std::optional<Array<float, 3>>& map, const Array<float, 1>& maxima, const Array<float, 1>& means) {
        flawline::run(engine_, image, reconstruction, map, maxima, means);
    }

private:
    Array<const float, 1> taps_;
    Pool pool_;
    ErrorEngine engine_;
};

std::vector<std::string> bound_implementations() {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
    return names;
}

void bound_embeddings(const std::string& implementation, const FeatureMaps& maps,
                      const std::vector<ResamplingArrays>& resamplings, int64_t height, int64_t width, int threads,
                      const Array<float, 3>& out) {
    const std::vector<const float*> pointers = view(maps);
    const std::vector<Resampling> resampled = view(resamplings);
    const nb::gil_scoped_release release;
    embeddings(kernels_named(implementation), resampled, pointers, static_cast<int64_t>(out.shape(0)),
               static_cast<int64_t>(out.shape(2)), height, width, threads, out.data());
}

void bound_mahalanobis(const std::string& implementation, const Array<const float, 3>& x,
                       const GaussianArrays& gaussians, const Array<const int32_t, 1>& order, int threads,
                       const Array<float, 2>& out) {
    const Gaussians viewed = view(gaussians);
    const int64_t count = static_cast<int64_t>(x.shape(1));
    const int64_t dimension = viewed.dimension;
    const nb::gil_scoped_release release;
    const Vectors vectors = {x.data(), static_cast<int64_t>(x.shape(0)), count * dimension, count == 1 ? 0 : dimension, 0};
    mahalanobis(kernels_named(implementation), viewed, vectors, order.data(), static_cast<int64_t>(order.size()),
                threads, out.data());
}

void bound_smooth(const std::string& implementation, const Array<const float, 3>& maps, const FilterArrays& filter,
                  int threads, const Array<float, 3>& out) {
    const Filter viewed = view(filter);
    const nb::gil_scoped_release release;
    smooth(kernels_named(implementation), viewed, maps.data(), static_cast<int64_t>(maps.shape(0)),
           static_cast<int64_t>(maps.shape(1)), static_cast<int64_t>(maps.shape(2)), threads, out.data());
}

void bound_proximal_error(const std::string& implementation, const Array<const float, 1>& taps, const Images& image,
                          const Array<const float, 4>& reconstruction, int threads, const Array<float, 3>& map,
                          const Array<float, 1>& maxima, const Array<float, 1>& means) {
    const auto size = [&](int axis) { return static_cast<int64_t>(image.shape(axis)); };
    const bool bytes = image.dtype() == nb::dtype<uint8_t>();
    ErrorEngine engine(kernels_named(implementation), error_plan(taps, size(1), size(2), size(3), bytes), size(0),
                       shared_pool(threads));
    run(engine, image, reconstruction, map, maxima, means);
}

uint64_t bound_checksum(const std::string& implementation, const Array<const uint8_t, 1>& bytes, int threads) {
    const nb::gil_scoped_release release;
    return checksum(kernels_named(implementation), bytes.data(), static_cast<int64_t>(bytes.size()), threads);
}

}  // namespace
}  // namespace flawline

NB_MODULE(_native, module) {
    using namespace flawline;
    module.def("implementations", &bound_implementations);
    module.def("embeddings", &bound_embeddings);
    module.def("mahalanobis", &bound_mahalanobis);
    module.def("smooth", &bound_smooth);
    module.def("proximal_error", &bound_proximal_error);
    module.def("checksum", &bound_checksum);
    nb::class_<BoundMap>(module, "MahalanobisMap")
        .def(nb::init<const std::string&, GaussianArrays, std::vector<ResamplingArrays>, FilterArrays,
                      Array<const int32_t, 1>, int64_t, int64_t, int64_t, int64_t, int>(),
             "implementation"_a, "gaussians"_a, "resamplings"_a, "smoothing"_a, "order"_a, "height"_a, "width"_a,
             "group_rows"_a, "batch"_a, "threads"_a)
        .def("run", &BoundMap::run, "maps"_a, "out"_a, "scores"_a);
    nb::class_<BoundError>(module, "ProximalErrorMap")
        .def(nb::init<const std::string&, Array<const float, 1>, bool, int64_t, int64_t, int64_t, int64_t, int>(),
             "implementation"_a, "taps"_a, "of_bytes"_a, "channels"_a, "height"_a, "width"_a, "batch"_a, "threads"_a)
        .def("run", &BoundError::run, "image"_a, "reconstruction"_a, "out"_a.none(), "maxima"_a, "means"_a);
}
