from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawline.runtime.errors import InputError
from flawline.runtime.kernels import BLOCK_ROWS, pack, packed_size, unpack

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
        (np.zeros((0, 0)), "at least 1"),
    ],
)
def test_what_is_no_factor_is_refused(lower, message):
    with pytest.raises(InputError, match=message):
        pack(lower)


def test_other_dtypes_and_sizes_are_refused():
    with pytest.raises(InputError, match="float16 or float32"):
        pack(np.eye(3), np.float64)
    with pytest.raises(InputError, match=r"expected \(\.\.\., 32\) for dimension 1"):
        unpack(np.zeros((2, 64), np.float32), 1)
    with pytest.raises(InputError, match="at least 1"):
        packed_size(0)
