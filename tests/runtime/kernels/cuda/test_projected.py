"""Distances with the projection inside, against NumPy and against the projection that comes before the kernel."""

import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import reference
from flawline.runtime.kernels.cuda import calls
from tests.emulation.build import ORDERS
from tests.runtime.kernels.cases import BATCHES, DTYPES, MAP_TIES, SIZE, TOLERANCE, thinned
from tests.runtime.kernels.cuda.running import map_distances, projected_distances

# Around the pieces of eight channels and the tiles of 16 and 32, within one map and across two.
DEPTHS = ((1,), (7,), (8,), (9, 7), (16, 17), (3, 1, 60), (31, 33, 65))
DIMENSIONS = (1, 8, 17, 63, 64, 65, 130)
SHAPES = ((7, 5), (4, 3), (1, 2))
MATRICES = ("float16", "float32")


def random_case(rng, depths, d, matrix, batch):
    projection = (rng.standard_normal((d, sum(depths))) / np.sqrt(sum(depths))).astype(matrix)
    maps = [
        rng.standard_normal((batch, depth, *shape)).astype(np.float32)
        for depth, shape in zip(depths, SHAPES, strict=False)
    ]
    return projection, maps


def assert_close(distances, expected):
    # A component of z is a difference, whose rounding is relative to what it is the difference of.
    np.testing.assert_allclose(distances, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("tie", "depths", "d", "matrix"), thinned(4, MAP_TIES, DEPTHS, DIMENSIONS, MATRICES))
def test_distances_are_those_of_projected_vectors(device, tie, depths, d, matrix, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, d, tie=tie)
    projection, maps = random_case(rng, depths, d, matrix, 3)
    vectors = reference.projected_embeddings(maps, projection, SIZE, "bilinear")
    out = projected_distances(device, gaussians, projection, maps, SIZE, order=sum(depths) % ORDERS)
    assert_close(out, reference.mahalanobis(vectors, gaussians))


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize(("dtype", "rank"), [*((dtype, None) for dtype in DTYPES), ("float16", 9)])
@pytest.mark.parametrize("tie", MAP_TIES)
def test_frames_of_a_batch_may_be_fewer_than_planned(device, tie, dtype, rank, upsampling, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 17, tie=tie, components=2, dtype=dtype, rank=rank)
    for order, batch in enumerate(BATCHES):
        projection, maps = random_case(rng, (20, 30), 17, "float16", batch)
        expected = reference.projected_embeddings(maps, projection, SIZE, upsampling)
        out = projected_distances(
            device, gaussians, projection, maps, SIZE, upsampling=upsampling, planned=9, order=order % ORDERS
        )
        assert_close(out[:batch], reference.mahalanobis(expected, gaussians))
        assert np.isnan(out[batch:]).all()


@pytest.mark.parametrize(("d", "components", "batch"), [(300, 1, 2), (300, 1, 8), (448, 1, 8), (448, 3, 9)])
def test_large_vectors_share_a_block_with_fewer_others(device, d, components, batch, make_gaussians, rng):
    gaussians = make_gaussians((1, 3), d, components=components)
    projection, maps = random_case(rng, (64, 128, 256), d, "float16", batch)
    expected = reference.projected_embeddings(maps, projection, (1, 3), "bilinear")
    out = projected_distances(device, gaussians, projection, maps, (1, 3), order=2)
    assert_close(out, reference.mahalanobis(expected, gaussians))


@pytest.mark.parametrize("tie", MAP_TIES)
def test_projection_of_each_map_before_upsampling_gives_the_same(device, tie, make_gaussians, rng):
    depths = (16, 24, 40)
    gaussians = make_gaussians(SIZE, 17, tie=tie)
    projection, maps = random_case(rng, depths, 17, "float32", 2)
    parts = np.split(projection, np.cumsum(depths)[:-1], axis=1)
    folded = [np.einsum("dc,bcyx->bdyx", part, each) for part, each in zip(parts, maps, strict=True)]
    inside = projected_distances(device, gaussians, projection, maps, SIZE)
    assert_close(inside, map_distances(device, gaussians, folded, SIZE))


@pytest.mark.parametrize("tie", MAP_TIES)
def test_bits_depend_neither_on_the_order_of_threads_nor_on_other_frames(device, tie, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 65, tie=tie)
    projection, maps = random_case(rng, (20, 30), 65, "float16", 9)
    together, *others = (
        projected_distances(device, gaussians, projection, maps, SIZE, order=order) for order in range(ORDERS)
    )
    assert all(other.tobytes() == together.tobytes() for other in others)
    for first, last in ((0, 1), (8, 9), (2, 4), (4, 7)):
        some = projected_distances(device, gaussians, projection, [each[first:last] for each in maps], SIZE)
        assert some.tobytes() == together[first:last].tobytes()


def test_nan_is_not_hidden(device, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 17, components=3)
    for index, channel in ((0, 0), (0, 8), (1, 29)):
        projection, maps = random_case(rng, (9, 30), 17, "float16", 2)
        maps[index][1, channel, 1, 1] = np.nan
        vectors = reference.projected_embeddings(maps, projection, SIZE, "bilinear")
        out = projected_distances(device, gaussians, projection, maps, SIZE)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(reference.mahalanobis(vectors, gaussians)))
        assert np.isnan(out[1]).any()
        assert not np.isnan(out[0]).any()


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (np.ones((17, 40), np.float32), r"projection: received float32 \(17, 40\), expected .* \(17, 39\)"),
        (np.ones((16, 39), np.float32), r"projection: received float32 \(16, 39\), expected .* \(17, 39\)"),
        (np.ones((17, 39), np.int8), r"projection: received int8 \(17, 39\), expected float16 or float32"),
        (np.ones((39, 17), np.float16).T, "projection: received a view that is not C-contiguous"),
    ],
)
def test_another_projection_is_refused(device, projection, message, make_gaussians):
    gaussians = make_gaussians(SIZE, 17)
    with pytest.raises(InputError, match=message):
        calls.projected_distances(gaussians, projection, [(9, 7, 5), (30, 4, 3)], SIZE, 1, device.put)
