from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import BLOCK_ROWS, pack, pack_int8, packed_size, padded_rows, quantise, unpack

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(("dtype", "suffix"), [("float16", "f16"), ("float32", "f32")])
def test_layout_is_the_committed_one(dtype, suffix):
    rows, columns = np.indices((9, 9))
    lower = np.tril(16.0 * rows + columns + 1)
    golden = (GOLDEN / f"factor_9.{suffix}").read_bytes()
    assert pack(lower, dtype).astype(np.dtype(dtype).newbyteorder("<")).tobytes() == golden
    np.testing.assert_array_equal(unpack(np.frombuffer(golden, dtype), 9), lower)


@given(
    d=st.integers(1, 40),
    leading=st.lists(st.integers(0, 3), max_size=2),
    dtype=st.sampled_from(["float16", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_unpack_restores_what_pack_rounded(d, leading, dtype, seed):
    lower = np.tril(np.random.default_rng(seed).standard_normal((*leading, d, d)))
    packed = pack(lower, dtype)
    assert packed.shape == (*leading, packed_size(d))
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(unpack(packed, d), lower.astype(dtype).astype(np.float32))


@given(d=st.integers(1, 40), data=st.data(), leading=st.lists(st.integers(0, 3), max_size=2))
def test_last_rows_are_packed_as_those_of_a_whole_triangle(d, data, leading):
    rank = data.draw(st.integers(1, d))
    lower = np.tril(np.random.default_rng(d).standard_normal((*leading, d, d)))
    lower[..., : d - rank, :] = 0
    packed = pack(lower[..., d - rank :, :], "float32")
    assert packed.shape == (*leading, packed_size(d, rank))
    blocks = BLOCK_ROWS * sum(
        last + last % 2 for last in range(d, 0, -BLOCK_ROWS)[: padded_rows(d, rank) // BLOCK_ROWS]
    )
    whole = BLOCK_ROWS * sum(last + last % 2 for last in range(d, 0, -BLOCK_ROWS))
    np.testing.assert_array_equal(packed[..., :blocks], pack(lower, "float32")[..., whole - blocks : whole])
    np.testing.assert_array_equal(unpack(packed, d, rank), lower[..., d - rank :, :].astype(np.float32))


@given(
    d=st.integers(1, 40),
    rank=st.integers(1, 40),
    leading=st.lists(st.integers(0, 3), max_size=2),
    scale=st.sampled_from([1e-1, 1.0, 1e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_int8_rows_are_off_by_half_a_step_at_most(d, rank, leading, scale, seed):
    rank = min(rank, d)
    lower = scale * np.tril(np.random.default_rng(seed).standard_normal((*leading, rank, d)), d - rank)
    lower[..., 0, :] = 0
    packed, row_scales = pack_int8(lower)
    assert packed.dtype == np.int8
    assert packed.shape == (*leading, packed_size(d, rank))
    assert row_scales.dtype == np.float16
    assert row_scales.shape == (*leading, padded_rows(d, rank))
    restored = unpack(packed, d, rank, row_scales)
    steps = row_scales[..., padded_rows(d, rank) - rank :, None].astype(np.float64)
    assert (np.abs(restored - lower) <= 0.57 * steps).all()
    largest = np.abs(lower).max(-1, initial=0)
    assert (steps[..., 0] <= largest / 127 * (1 + 2**-10)).all()


def test_int8_takes_the_scale_as_it_is_stored():
    row = np.array([[1000.0, -1.0, 500.0]])
    (quantised,), (scale,) = quantise(row)
    assert scale == np.float16(1000 / 127)
    np.testing.assert_array_equal(quantised, np.rint(row[0] / float(scale)))


def test_int8_keeps_rows_of_zeros_and_rows_too_small_for_a_scale_as_zeros():
    packed, row_scales = pack_int8(np.diag([0.0, 1e-9, 1.0]))
    np.testing.assert_array_equal(row_scales, np.array([0, 0, 0, 0, 0, 0, 0, 1 / 127], np.float16))
    np.testing.assert_array_equal(np.flatnonzero(packed), np.flatnonzero(pack(np.diag([0.0, 0.0, 1.0]))))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.full((1, 1), np.nan), "not finite"),
        (np.full((1, 1), -np.inf), "not finite"),
        (np.full((1, 1), 1e7), "too large for a scale"),
        (np.zeros(3), "expected floating point"),
        (np.zeros((3, 3), np.int8), "expected floating point"),
    ],
)
def test_what_int8_cannot_hold_is_refused(rows, message):
    with pytest.raises(InputError, match=message):
        quantise(rows)


def test_int8_that_is_no_quantised_factor_is_refused():
    with pytest.raises(InputError, match="expected int8"):
        pack(np.eye(3), np.int8)
    with pytest.raises(InputError, match="expected floating point"):
        pack(np.eye(3, dtype=np.int8), np.float16)
    with pytest.raises(InputError, match="beyond 127"):
        pack(np.full((1, 1), -128, np.int8), np.int8)


@pytest.mark.parametrize("d", range(1, 200))
def test_every_fp16_factor_takes_whole_cache_lines(d):
    assert packed_size(d) % 32 == 0
    needed = BLOCK_ROWS * sum(last + last % 2 for last in range(d, 0, -BLOCK_ROWS))
    assert needed <= packed_size(d) < needed + 32


def test_overhead_over_the_triangle_is_small():
    assert packed_size(100) == 5408
    assert packed_size(100) <= 1.08 * 100 * 101 / 2


@pytest.mark.parametrize(
    ("lower", "message"),
    [
        (np.zeros((3, 2)), "expected floating point"),
        (np.zeros(3), "expected floating point"),
        (np.zeros((3, 3), np.int32), "expected floating point"),
        (np.ones((3, 3)), "above the diagonal"),
        (np.full((2, 2), np.nan), "not finite"),
        (np.diag([1.0, np.inf]), "not finite"),
        (np.diag([1.0, 1e5]), "beyond 65504"),
        (np.zeros((0, 0)), "expected floating point"),
        (np.zeros((4, 3)), "expected floating point"),
        (np.ones((2, 3)), "above the diagonal"),
    ],
)
def test_what_is_no_factor_is_refused(lower, message):
    with pytest.raises(InputError, match=message):
        pack(lower)


def test_other_dtypes_and_sizes_are_refused():
    with pytest.raises(InputError, match="float16, float32 or int8"):
        pack(np.eye(3), np.float64)
    with pytest.raises(InputError, match=r"expected \(\.\.\., 32\) for dimension 1"):
        unpack(np.zeros((2, 64), np.float32), 1)
    with pytest.raises(InputError, match="at least 1"):
        packed_size(0)
    for rank in (0, 6):
        with pytest.raises(InputError, match=f"rank {rank}: expected 1 to the dimension"):
            packed_size(5, rank)
    with pytest.raises(InputError, match=r"row scales \(2, 3\): expected \(2, 8\)"):
        unpack(np.zeros((2, packed_size(3)), np.int8), 3, row_scales=np.zeros((2, 3), np.float16))
