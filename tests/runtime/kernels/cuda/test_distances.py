"""The case table of the distances, run by the CUDA kernels under the emulator."""

import itertools

import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import Gaussians, pack, packed_size, reference
from flawline.runtime.kernels.cuda import calls
from flawline.runtime.kernels.cuda.jobs import MOST_MAPS
from flawline.runtime.kernels.cuda.plan import MOST_SHARED_BYTES, items, plan
from tests.emulation.build import ORDERS
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
    random_maps,
    size_for,
    thinned,
)
from tests.runtime.kernels.cuda.running import map_distances, vector_distances


@pytest.mark.parametrize(("dtype", "d", "components", "tie"), thinned(4, DTYPES, DIMENSIONS, (1, 3), TIES))
def test_distances_are_those_of_the_textbook(device, dtype, d, components, tie, make_gaussians, textbook, rng):
    gaussians = make_gaussians(size_for(d), d, tie=tie, components=components, dtype=dtype)
    vectors = 1 if tie == "classes" else gaussians.outputs
    x = rng.standard_normal((max(BATCHES), vectors, d)).astype(np.float32)
    expected = textbook(x, gaussians)
    for order, batch in enumerate(BATCHES):
        out = vector_distances(device, gaussians, x[:batch], order=order % ORDERS)
        np.testing.assert_allclose(out, expected[:batch], rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("dtype", "dimensions", "tied"), thinned(3, DTYPES, RANKS, (("position", 1), ("global", 3), ("column", 2)))
)
def test_distances_in_the_woodbury_form_are_those_of_the_textbook(
    device, dtype, dimensions, tied, make_gaussians, textbook, rng
):
    (d, rank), (tie, components) = dimensions, tied
    gaussians = make_gaussians((3, 5), d, tie=tie, components=components, dtype=dtype, rank=rank)
    x = rng.standard_normal((max(BATCHES), gaussians.outputs, d)).astype(np.float32)
    expected = textbook(x, gaussians)
    for order, batch in enumerate(BATCHES):
        out = vector_distances(device, gaussians, x[:batch], order=order % ORDERS)
        np.testing.assert_allclose(out, expected[:batch], rtol=WOODBURY_TOLERANCE)


@pytest.mark.parametrize("d", [448, 550])
@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_factors_take_all_warps_of_a_block(device, dtype, components, d, make_gaussians, textbook, rng):
    gaussians = make_gaussians((1, 2), d, components=components, dtype=dtype)
    x = rng.standard_normal((9, 2, d)).astype(np.float32)
    out = vector_distances(device, gaussians, x, order=3)
    np.testing.assert_allclose(out, textbook(x, gaussians), rtol=TOLERANCE)


@pytest.mark.parametrize("d", [100, 448])
@pytest.mark.parametrize("components", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_block_holds_more_positions_than_it_scores_at_a_time(device, dtype, components, d, make_gaussians, rng):
    size = (3, 3)
    gaussians = make_gaussians(size, d, components=components, dtype=dtype)
    for order, batch in enumerate((1, 2, 8)):
        maps = random_maps(rng, batch, d, SHAPES[2])
        expected = reference.mahalanobis(reference.embeddings(maps, size, "bilinear"), gaussians)
        out = map_distances(device, gaussians, maps, size, order=order)
        np.testing.assert_allclose(out, expected, rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("dtype", "tie", "upsampling", "scales"), thinned(2, DTYPES, MAP_TIES, ("bilinear", "nearest"), SHAPES)
)
def test_map_is_embeddings_then_distances(device, dtype, tie, upsampling, scales, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 17, tie=tie, components=2, dtype=dtype)
    for order, batch in enumerate(range(1, 10)):
        maps = random_maps(rng, batch, 17, SHAPES[scales])
        expected = reference.mahalanobis(reference.embeddings(maps, SIZE, upsampling), gaussians)
        out = map_distances(device, gaussians, maps, SIZE, upsampling=upsampling, planned=9, order=order % ORDERS)
        np.testing.assert_allclose(out[:batch], expected, rtol=TOLERANCE)
        # Frames that were planned and did not come are left as they were.
        assert np.isnan(out[batch:]).all()


def test_as_many_maps_as_a_kernel_takes_are_summed(device, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 9)
    maps = random_maps(rng, 2, 9, [(1 + i, 8 - i) for i in range(MOST_MAPS)])
    expected = reference.mahalanobis(reference.embeddings(maps, SIZE, "bilinear"), gaussians)
    np.testing.assert_allclose(map_distances(device, gaussians, maps, SIZE), expected, rtol=TOLERANCE)


@pytest.mark.parametrize(("dtype", "rank"), STORED)
@pytest.mark.parametrize("tie", TIES)
def test_bits_do_not_depend_on_the_order_of_threads(device, tie, dtype, rank, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 33, tie=tie, components=2, dtype=dtype, rank=rank)
    maps = random_maps(rng, 3, 33, SHAPES[3])
    forwards, *others = (map_distances(device, gaussians, maps, SIZE, order=order) for order in range(ORDERS))
    assert all(other.tobytes() == forwards.tobytes() for other in others)


@pytest.mark.parametrize(("dtype", "rank"), STORED)
@pytest.mark.parametrize("tie", TIES)
def test_frame_has_the_same_bits_alone_and_in_a_batch(device, tie, dtype, rank, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 65, tie=tie, dtype=dtype, rank=rank)
    maps = random_maps(rng, 9, 65, SHAPES[2])
    together = map_distances(device, gaussians, maps, SIZE)
    for first, last in ((0, 1), (8, 9), (2, 4), (4, 7), (1, 9)):
        some = map_distances(device, gaussians, [each[first:last] for each in maps], SIZE)
        assert some.tobytes() == together[first:last].tobytes()


@pytest.mark.parametrize(("dtype", "rank"), [("float16", None), ("int8", 9)])
def test_nan_is_not_hidden(device, dtype, rank, make_gaussians, rng):
    gaussians = make_gaussians(SIZE, 17, components=3, dtype=dtype, rank=rank)
    for index, channel in itertools.product((0, 1), (0, 8, 16)):
        maps = random_maps(rng, 2, 17, SHAPES[2])
        maps[index][1, channel, 1, 1] = np.nan
        expected = reference.mahalanobis(reference.embeddings(maps, SIZE, "bilinear"), gaussians)
        out = map_distances(device, gaussians, maps, SIZE)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
        assert np.isnan(out[1]).any()
        assert not np.isnan(out[0]).any()


def test_a_difference_that_rounding_makes_negative_is_no_distance_at_all(device, make_gaussians):
    gaussians = make_gaussians((1, 2), 9, dtype="float32", rank=4)
    gaussians.factors[...] = pack(np.tril(np.ones((2, 1, 4, 9)), 5), "float32")
    x = gaussians.means[:, 0][None] + np.float32(1)
    np.testing.assert_array_equal(vector_distances(device, gaussians, x), [[0, 0]])
    x[0, 1, 3] = np.nan
    np.testing.assert_array_equal(vector_distances(device, gaussians, x), [[0, np.nan]])


def test_assignment_may_be_any_mapping(device, make_gaussians, textbook, rng):
    few = make_gaussians((2, 3), 9, components=2)
    gaussians = Gaussians(few.means, few.factors, few.scales, rng.integers(0, 6, 35).astype(np.int32))
    x = rng.standard_normal((2, 35, 9)).astype(np.float32)
    for order in range(ORDERS):
        out = vector_distances(device, gaussians, x, order=order)
        np.testing.assert_allclose(out, textbook(x, gaussians), rtol=TOLERANCE)


def test_subnormal_fp16_factors_count(device, make_gaussians, textbook, rng):
    gaussians = make_gaussians(SIZE, 16)
    tiny = (gaussians.factors * np.float16(2**-13)).astype(np.float16)
    assert ((tiny != 0) & (np.abs(tiny) < np.finfo(np.float16).tiny)).any()
    scaled = Gaussians(gaussians.means, tiny, gaussians.scales, gaussians.assignment)
    x = rng.standard_normal((1, 35, 16)).astype(np.float32)
    np.testing.assert_allclose(vector_distances(device, scaled, x), textbook(x, scaled), rtol=TOLERANCE)


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("frames", BATCHES)
def test_each_vector_is_on_the_list_once_and_beside_those_of_its_gaussian(frames, tie, make_gaussians):
    gaussians = make_gaussians(SIZE, 3, tie=tie)
    work = items(gaussians, frames)
    assert work.vectors.dtype == work.gaussians.dtype == np.int32
    there = work.vectors[..., 0] >= 0
    listed = [tuple(vector) for vector in work.vectors[there].tolist()]
    assert sorted(listed) == list(itertools.product(range(frames), range(gaussians.outputs)))
    owners = gaussians.assignment[work.vectors[..., 1]]
    assert (owners == work.gaussians[:, None])[there].all()
    # No factor is read more often than the room for vectors makes necessary.
    assert len(work.gaussians) == sum(
        -(-n * frames // work.vectors_per_item) for n in np.bincount(gaussians.assignment)
    )


@pytest.mark.parametrize(
    ("d", "components", "embedded"),
    [
        *itertools.product((1, 100, 448, 1792), (1, 8), ("vector", "map")),
        *itertools.product((1, 100, 448), (1, 8), ("projection",)),
    ],
)
def test_plan_fits_the_shared_memory_of_a_block(d, components, embedded):
    gaussians = blank_gaussians(d, components)
    for frames in BATCHES:
        work, launch, held, columns = plan(gaussians, frames, embedded=embedded)
        assert launch.shared_bytes <= MOST_SHARED_BYTES
        assert columns == (held * work.vectors_per_item // 2 if embedded == "projection" else 0)
        assert held % launch.block[2] == 0
        assert (launch.grid[0] - 1) * held < len(work.gaussians) <= launch.grid[0] * held


@pytest.mark.parametrize(
    ("d", "frames", "held"), [(16, 1, 8), (100, 1, 8), (550, 1, 8), (100, 8, 8), (448, 8, 2), (550, 8, 2), (1400, 8, 1)]
)
def test_block_holds_as_many_of_eight_neighbouring_positions_as_fit(d, frames, held):
    assert plan(blank_gaussians(d, shared=False), frames, embedded="map").held == held


@pytest.mark.parametrize(("d", "held"), [(16, 8), (100, 4), (448, 1)])
def test_block_holds_no_more_items_than_it_scores_at_a_time_where_each_has_its_neighbours(d, held):
    gaussians = blank_gaussians(d)
    tied = Gaussians(gaussians.means, gaussians.factors, gaussians.scales, np.zeros(64, np.int32))
    assert plan(tied, 1, embedded="map").held == held


def blank_gaussians(d, components=1, *, shared=True):
    several = (1 if shared else 6, components)
    factors = np.broadcast_to(np.float16(0), (*several, packed_size(d))).copy()
    assignment = np.arange(6, dtype=np.int32) % several[0]
    return Gaussians(np.zeros((*several, d), np.float32), factors, np.ones(several, np.float32), assignment)


def nothing_is_uploaded(array):
    raise AssertionError(f"{array.shape} was uploaded before the call was refused")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map_shapes": []}, "feature maps: received 0, expected 1 to 8"),
        ({"map_shapes": [(2, 3)] * 9}, "feature maps: received 9, expected 1 to 8"),
        ({"map_shapes": [(2, 0)]}, "width of a map: received 0, expected an integer of at least 1"),
        ({"size": (3, 3)}, "assignment: received 6 outputs, expected 3 x 3 positions"),
        ({"frames": 0}, "frames: received 0, expected an integer of at least 1"),
        ({"gaussians": blank_gaussians(7000, 2)}, "received 2 components of 7000 dimensions"),
        ({"upsampling": "cubic"}, "upsampling: received 'cubic', expected 'bilinear' or 'nearest'"),
    ],
)
def test_what_no_kernel_can_do_is_refused_before_anything_is_uploaded(arguments, message):
    good = {
        "gaussians": blank_gaussians(4),
        "map_shapes": [(2, 3)],
        "size": (2, 3),
        "frames": 1,
        "upload": nothing_is_uploaded,
    }
    with pytest.raises(InputError, match=message):
        calls.map_distances(**{**good, **arguments})
