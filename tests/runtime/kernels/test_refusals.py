"""Nothing that native code could trip over reaches it."""

import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import (
    Gaussians,
    MahalanobisMap,
    embeddings,
    mahalanobis,
    pack,
    pack_int8,
    read_bandwidth,
    smooth,
)

SIZE, D = (3, 4), 9


def arrays():
    return {
        "means": np.zeros((12, 2, D), np.float32),
        "factors": pack(np.broadcast_to(np.eye(D), (12, 2, D, D))),
        "scales": np.ones((12, 2), np.float32),
        "assignment": np.arange(12, dtype=np.int32),
    }


def with_entry(array, value):
    changed = array.copy()
    changed.flat[-1] = value
    return changed


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("means", lambda a: a.astype(np.float64), r"means: received float64 \(12, 2, 9\)"),
        ("means", lambda a: a[0], r"expected float32 \(G, K, d\)"),
        ("means", lambda a: a[:0], r"expected float32 \(G, K, d\)"),
        ("means", lambda a: np.asfortranarray(a), "not C-contiguous"),
        ("means", lambda a: a.tolist(), "received list"),
        ("means", lambda a: with_entry(a, np.nan), "means: received NaN or infinity"),
        ("means", lambda a: a.astype(">f4"), "means: received >f4"),
        ("factors", lambda a: a[..., :-1], r"expected float16 or float32 or int8 \(12, 2, 96\)"),
        ("factors", lambda a: a.astype(np.float64), "factors: received float64"),
        ("factors", lambda a: a[:, ::-1], "factors: received a view"),
        ("scales", lambda a: a[:, :1], r"scales: received float32 \(12, 1\)"),
        ("scales", lambda a: with_entry(a, 0), "not a positive finite"),
        ("scales", lambda a: with_entry(a, np.inf), "not a positive finite"),
        ("scales", lambda a: with_entry(a, np.nan), "not a positive finite"),
        ("assignment", lambda a: with_entry(a, 12), r"assignment: received 0 \.\. 12, expected 0 \.\. 11"),
        ("assignment", lambda a: with_entry(a, -1), r"assignment: received -1"),
        ("assignment", lambda a: a.astype(np.int64), "assignment: received int64"),
        ("assignment", lambda a: a[:0], r"expected int32 \(P\)"),
    ],
)
def test_malformed_gaussians_are_refused(name, change, message):
    parts = arrays()
    parts[name] = change(parts[name])
    with pytest.raises(InputError, match=message):
        Gaussians(**parts)


def int8_arrays():
    factors, row_scales = pack_int8(np.broadcast_to(np.eye(D), (12, 2, D, D)))
    return arrays() | {"factors": factors, "row_scales": row_scales}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: None, r"row_scales: received NoneType, expected a NumPy array float16 \(12, 2, 16\)"),
        (lambda a: a[..., :D], r"row_scales: received float16 \(12, 2, 9\)"),
        (lambda a: a.astype(np.float32), "row_scales: received float32"),
        (lambda a: a[:, ::-1], "row_scales: received a view"),
        (lambda a: with_entry(a, np.nan), "row_scales: received one that is negative or not finite"),
        (lambda a: with_entry(a, np.inf), "row_scales: received one that is negative or not finite"),
        (lambda a: with_entry(a, -1), "row_scales: received one that is negative or not finite"),
    ],
)
def test_malformed_row_scales_are_refused(change, message):
    parts = int8_arrays()
    with pytest.raises(InputError, match=message):
        Gaussians(**parts | {"row_scales": change(parts["row_scales"])})


def test_row_scales_belong_to_int8_factors():
    with pytest.raises(InputError, match="received some for float16 factors"):
        Gaussians(**int8_arrays() | {"factors": arrays()["factors"]})


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (0, "rank: received 0"),
        (-1, "rank: received -1"),
        (2.0, r"rank: received 2\.0"),
        (True, "rank: received True"),
        (D + 1, "rank 10: expected 1 to the dimension 9"),
    ],
)
def test_rank_that_does_not_fit_is_refused(rank, message):
    with pytest.raises(InputError, match=message):
        Gaussians(**arrays(), rank=rank)


def test_factors_of_another_rank_are_refused():
    whole = pack(np.eye(16)[None, None])
    with pytest.raises(InputError, match=r"factors: received float16 \(1, 1, 192\), .* \(1, 1, 128\)"):
        Gaussians(np.zeros((1, 1, 16), np.float32), whole, np.ones((1, 1), np.float32), np.zeros(1, np.int32), rank=8)


def test_unaligned_memory_is_refused():
    memory = np.zeros(12 * 2 * D * 4 + 1, np.uint8)
    parts = arrays() | {"means": np.frombuffer(memory, np.float32, 12 * 2 * D, 1).reshape(12, 2, D)}
    with pytest.raises(InputError, match="means: received memory"):
        Gaussians(**parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (4, 4)}, "received 12 outputs, expected 4 x 4"),
        ({"size": (0, 4)}, "height of a map: received 0"),
        ({"map_shapes": []}, "number of feature maps: received 0"),
        ({"map_shapes": [(3, 0)]}, "width of a map: received 0"),
        ({"map_shapes": [(3, 2.5)]}, r"width of a map: received 2\.5"),
        ({"upsampling": "cubic"}, "upsampling: received 'cubic'"),
        ({"batch": 0}, "batch: received 0"),
        ({"threads": 0}, "threads: received 0"),
        ({"threads": 10**6}, "threads: received 1000000, expected at most"),
        ({"sigma": -1.0}, r"sigma: received -1\.0"),
        ({"sigma": float("nan")}, "sigma: received nan"),
        ({"implementation": "sse"}, "implementation: received 'sse', expected one of"),
    ],
)
@pytest.mark.parametrize("implementation", [None, "reference"])
def test_options_out_of_range_are_refused(implementation, options, message):
    chosen = {"map_shapes": [SIZE, (1, 2)], "size": SIZE, "implementation": implementation} | options
    with pytest.raises(InputError, match=message):
        MahalanobisMap(Gaussians(**arrays()), **chosen)


def feature_maps(batch=1):
    return [np.zeros((batch, D, *shape), np.float32) for shape in (SIZE, (1, 2))]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (feature_maps()[:1], "maps: received 1, expected 2"),
        (feature_maps(3), "received 3 frames, expected at most 2"),
        (feature_maps(0), r"maps\[0\]: received float32 \(0, 9, 3, 4\)"),
        ([feature_maps(1)[0], feature_maps(2)[1]], r"maps\[1\]: received float32 \(2, 9, 1, 2\)"),
        ([m.astype(np.float64) for m in feature_maps()], r"maps\[0\]: received float64"),
        ([np.asfortranarray(m) for m in feature_maps(2)], r"maps\[0\]: received a view"),
        ([None, None], r"maps\[0\]: received NoneType"),
        (feature_maps()[::-1], r"maps\[0\]: received float32 \(1, 9, 1, 2\)"),
    ],
)
def test_malformed_maps_are_refused(maps, message):
    with pytest.raises(InputError, match=message):
        MahalanobisMap(Gaussians(**arrays()), [SIZE, (1, 2)], SIZE, batch=2)(maps)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((1, 4, 3), np.float32), r"out: received float32 \(1, 4, 3\)"),
        (np.empty((2, *SIZE), np.float32), r"out: received float32 \(2, 3, 4\)"),
        (np.empty((1, *SIZE)), "out: received float64"),
        (np.broadcast_to(np.float32(0), (1, *SIZE)), "out: received a view"),
        (np.frombuffer(bytes(48), np.float32).reshape(1, *SIZE), "out: received a read-only array"),
    ],
)
def test_outputs_that_cannot_take_the_result_are_refused(out, message):
    with pytest.raises(InputError, match=message):
        MahalanobisMap(Gaussians(**arrays()), [SIZE, (1, 2)], SIZE)(feature_maps(), out)


def test_malformed_vectors_are_refused():
    gaussians = Gaussians(**arrays())
    with pytest.raises(InputError, match="received 5 vectors per frame, expected 1 or 12"):
        mahalanobis(np.zeros((1, 5, D), np.float32), gaussians)
    with pytest.raises(InputError, match=r"x: received float32 \(1, 12, 8\)"):
        mahalanobis(np.zeros((1, 12, 8), np.float32), gaussians)
    with pytest.raises(InputError, match="x: received float64"):
        mahalanobis(np.zeros((1, 12, D)), gaussians)


def test_other_functions_refuse_too():
    with pytest.raises(InputError, match=r"maps\[1\]"):
        embeddings([np.zeros((1, 2, 3, 3), np.float32), np.zeros((1, 3, 3, 3), np.float32)], (3, 3))
    with pytest.raises(InputError, match="number of feature maps"):
        embeddings([], (3, 3))
    maps = np.zeros((1, 3, 3), np.float32)
    with pytest.raises(InputError, match="memory of maps"):
        smooth(maps, 1.0, out=maps)
    with pytest.raises(InputError, match="sigma"):
        smooth(maps, float("inf"))
    with pytest.raises(InputError, match="not empty"):
        read_bandwidth(np.zeros(0))
    with pytest.raises(InputError, match="threads"):
        read_bandwidth(maps, 0)
