"""One table of cases for all implementations: each is held against the textbook formula in float64."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flawline.runtime.kernels import MahalanobisMap, embeddings, implementations, mahalanobis, pack, smooth
from tests.runtime.kernels.cases import (
    BATCHES,
    DIMENSIONS,
    DTYPES,
    MAP_TIES,
    RANKS,
    SHAPES,
    SIZE,
    STORED,
    TIES,
    TOLERANCE,
    WOODBURY_TOLERANCE,
    poisoned,
    random_maps,
    size_for,
)

NATIVE = [name for name in implementations() if name != "reference"]


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations())
def test_distances_are_those_of_the_textbook(implementation, dtype, d, components, tie, make_gaussians, textbook, rng):
    gaussians = make_gaussians(size_for(d), d, tie=tie, components=components, dtype=dtype)
    vectors = 1 if tie == "classes" else gaussians.outputs
    x = rng.standard_normal((max(BATCHES), vectors, d)).astype(np.float32)
    expected = textbook(x, gaussians)
    for batch in BATCHES:
        out = poisoned(batch, gaussians.outputs)
        assert mahalanobis(x[:batch], gaussians, out, implementation=implementation) is out
        np.testing.assert_allclose(out, expected[:batch], rtol=TOLERANCE)


@pytest.mark.parametrize(("tie", "components"), [("position", 1), ("global", 3)])
@pytest.mark.parametrize(("d", "rank"), RANKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations())
def test_distances_in_the_woodbury_form_are_those_of_the_textbook(
    implementation, dtype, d, rank, components, tie, make_gaussians, textbook, rng
):
    gaussians = make_gaussians((3, 5), d, tie=tie, components=components, dtype=dtype, rank=rank)
    assert gaussians.form == "woodbury"
    vectors = 1 if tie == "classes" else gaussians.outputs
    x = rng.standard_normal((max(BATCHES), vectors, d)).astype(np.float32)
    expected = textbook(x, gaussians)
    for batch in BATCHES:
        out = poisoned(batch, gaussians.outputs)
        mahalanobis(x[:batch], gaussians, out, implementation=implementation)
        np.testing.assert_allclose(out, expected[:batch], rtol=WOODBURY_TOLERANCE)


@pytest.mark.parametrize("implementation", implementations())
def test_a_difference_that_rounding_makes_negative_is_no_distance_at_all(implementation, make_gaussians):
    gaussians = make_gaussians((1, 2), 9, dtype="float32", rank=4)
    gaussians.factors[...] = pack(np.tril(np.ones((2, 1, 4, 9)), 5), "float32")
    x = gaussians.means[:, 0][None] + np.float32(1)
    np.testing.assert_array_equal(mahalanobis(x, gaussians, implementation=implementation), [[0, 0]])
    x[0, 1, 3] = np.nan
    np.testing.assert_array_equal(mahalanobis(x, gaussians, implementation=implementation), [[0, np.nan]])


@pytest.mark.parametrize("sigma", [0.0, 1.3, 4.0])
@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("tie", MAP_TIES)
@pytest.mark.parametrize("implementation", implementations())
def test_map_is_embeddings_then_distances_then_smoothing(
    implementation, tie, upsampling, scales, sigma, make_gaussians, rng
):
    d = 17
    gaussians = make_gaussians(SIZE, d, tie=tie, components=2)
    engine = MahalanobisMap(
        gaussians, SHAPES[scales], SIZE, upsampling=upsampling, batch=9, sigma=sigma, implementation=implementation
    )
    for batch in BATCHES:
        maps = random_maps(rng, batch, d, SHAPES[scales])
        out = poisoned(batch, *SIZE)
        result, scores = engine(maps, out)
        vectors = embeddings(maps, SIZE, upsampling=upsampling, implementation="reference")
        distances = mahalanobis(vectors, gaussians, implementation="reference").reshape(batch, *SIZE)
        assert result is out
        np.testing.assert_allclose(out, smooth(distances, sigma, implementation="reference"), rtol=TOLERANCE)
        np.testing.assert_array_equal(scores, out.max(axis=(1, 2)))


@pytest.mark.parametrize(("dtype", "rank"), STORED)
@pytest.mark.parametrize("tie", MAP_TIES)
@pytest.mark.parametrize("implementation", NATIVE)
def test_bits_do_not_depend_on_threads(implementation, tie, dtype, rank, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 33, tie=tie, components=2, dtype=dtype, rank=rank)
    maps = random_maps(rng, 3, 33, SHAPES[3])
    vectors = embeddings(maps, SIZE, implementation=implementation)
    once = mahalanobis(vectors, gaussians, implementation=implementation)
    alone, _ = MahalanobisMap(gaussians, SHAPES[3], SIZE, batch=3, sigma=1.0, implementation=implementation)(maps)
    for threads in (2, 3, 8, 50):
        several = MahalanobisMap(
            gaussians, SHAPES[3], SIZE, batch=3, sigma=1.0, threads=threads, implementation=implementation
        )
        assert several(maps)[0].tobytes() == alone.tobytes()
        again = mahalanobis(vectors, gaussians, threads=threads, implementation=implementation)
        assert again.tobytes() == once.tobytes()
        assert embeddings(maps, SIZE, threads=threads, implementation=implementation).tobytes() == vectors.tobytes()


@pytest.mark.parametrize(("dtype", "rank"), STORED)
@pytest.mark.parametrize("tie", MAP_TIES)
@pytest.mark.parametrize("implementation", NATIVE)
def test_frame_has_the_same_bits_alone_and_in_a_batch(implementation, tie, dtype, rank, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 65, tie=tie, dtype=dtype, rank=rank)
    maps = random_maps(rng, 9, 65, SHAPES[2])
    together, scores = MahalanobisMap(gaussians, SHAPES[2], SIZE, batch=9, sigma=2.0, implementation=implementation)(
        maps
    )
    one = MahalanobisMap(gaussians, SHAPES[2], SIZE, sigma=2.0, implementation=implementation)
    for frame in range(9):
        alone, score = one([feature_map[frame : frame + 1].copy() for feature_map in maps])
        assert alone.tobytes() == together[frame].tobytes()
        assert score[0] == scores[frame]


@pytest.mark.parametrize(("dtype", "rank"), [("float16", None), ("int8", 9)])
@pytest.mark.parametrize("sigma", [0.0, 1.0])
@pytest.mark.parametrize("implementation", implementations())
def test_nan_is_not_hidden(implementation, sigma, dtype, rank, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 17, components=3, dtype=dtype, rank=rank)
    engine = MahalanobisMap(gaussians, SHAPES[2], SIZE, batch=2, sigma=sigma, implementation=implementation)
    reference = MahalanobisMap(gaussians, SHAPES[2], SIZE, batch=2, sigma=sigma, implementation="reference")
    for index, channel in itertools.product((0, 1), (0, 8, 16)):
        maps = random_maps(rng, 2, 17, SHAPES[2])
        maps[index][1, channel, 1, 1] = np.nan
        out, scores = engine(maps)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(reference(maps)[0]))
        assert np.isnan(out[1]).any()
        np.testing.assert_array_equal(np.isnan(scores), [False, True])


@pytest.mark.parametrize("implementation", implementations())
def test_assignment_may_be_any_mapping(implementation, make_gaussians, textbook, rng):
    few = make_gaussians((2, 3), 9, components=2)
    assignment = rng.integers(0, 6, 35).astype(np.int32)
    gaussians = type(few)(few.means, few.factors, few.scales, assignment)
    maps = random_maps(rng, 2, 9, SHAPES[1])
    vectors = embeddings(maps, SIZE)
    expected = textbook(vectors, gaussians)
    np.testing.assert_allclose(mahalanobis(vectors, gaussians, implementation=implementation), expected, rtol=TOLERANCE)
    out, _ = MahalanobisMap(gaussians, SHAPES[1], SIZE, batch=2, implementation=implementation)(maps)
    np.testing.assert_allclose(out.reshape(2, -1), expected, rtol=TOLERANCE)


def test_subnormal_fp16_factors_count(make_gaussians, textbook, rng):
    gaussians = make_gaussians(SIZE, 16)
    tiny = (gaussians.factors * np.float16(2**-13)).astype(np.float16)
    assert ((tiny != 0) & (np.abs(tiny) < np.finfo(np.float16).tiny)).any()
    scaled = type(gaussians)(gaussians.means, tiny, gaussians.scales, gaussians.assignment)
    x = rng.standard_normal((1, 35, 16)).astype(np.float32)
    for implementation in implementations():
        got = mahalanobis(x, scaled, implementation=implementation)
        np.testing.assert_allclose(got, textbook(x, scaled), rtol=TOLERANCE)


def test_one_object_serves_several_python_threads(make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 64)
    engine = MahalanobisMap(gaussians, SHAPES[2], SIZE, sigma=1.0, threads=2)
    frames = [random_maps(rng, 1, 64, SHAPES[2]) for _ in range(20)]
    expected = [engine(maps)[0].tobytes() for maps in frames]
    with ThreadPoolExecutor(4) as executor:
        results = executor.map(lambda maps: engine(maps)[0].tobytes(), frames * 10)
    assert list(results) == expected * 10


def test_read_only_arrays_are_enough(make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 16, dtype="int8")
    for array in (gaussians.means, gaussians.factors, gaussians.scales, gaussians.assignment, gaussians.row_scales):
        array.flags.writeable = False
    maps = random_maps(rng, 1, 16, SHAPES[2])
    for feature_map in maps:
        feature_map.flags.writeable = False
    out, _ = MahalanobisMap(gaussians, SHAPES[2], SIZE)(maps)
    assert np.isfinite(out).all()
