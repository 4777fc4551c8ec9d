import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flawline.runtime.bundle import tensors
from flawline.runtime.bundle.contents import all_finite
from flawline.runtime.errors import BundleError

ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True),
    st.sampled_from(list(tensors.DTYPES.values())).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=5))
    ),
    min_size=1,
    max_size=6,
)


def encode(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    tensors.write(file, arrays)
    return file.getvalue()


@given(ARRAYS)
def test_what_is_written_is_read_back_bit_for_bit(arrays: dict[str, np.ndarray]) -> None:
    loaded = tensors.load(encode(arrays), "file")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()


@given(ARRAYS)
def test_the_safetensors_library_reads_the_same(arrays: dict[str, np.ndarray]) -> None:
    loaded = safetensors.numpy.load(encode(arrays))
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()


@given(ARRAYS)
def test_bytes_do_not_depend_on_the_order_of_the_tensors(arrays: dict[str, np.ndarray]) -> None:
    assert encode(dict(reversed(arrays.items()))) == encode(arrays)


def test_factors_come_first_at_a_multiple_of_64_bytes() -> None:
    arrays = {"a": np.zeros(3, np.float64), "factors": np.ones((2, 32), np.float16), "z": np.zeros(5, np.int8)}
    start, entries = tensors.parse_header(encode(arrays), "file")
    assert start % 64 == 0
    assert [entry.name for entry in entries] == ["factors", "a", "z"]


def test_strided_arrays_are_written_in_row_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(tensors.load(encode({"a": array}), "file")["a"], array)


def test_views_cannot_be_written_to() -> None:
    view = tensors.load(encode({"a": np.zeros(4, np.float32)}), "file")["a"]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(2, np.int64)}, "tensor a has dtype int64; expected one of"),
        ({"a": np.zeros(2, ">f4")}, "tensor a has dtype >f4; expected one of"),
        ({"a": np.zeros(0, np.float32)}, "tensor a has a side of 0"),
        ({"a": np.zeros((), np.float32)}, "the shape is not a list of 1 to 8 integers"),
        ({"A": np.zeros(2, np.float32)}, "tensor name 'A'; expected lower-case letters"),
    ],
)
def test_what_a_reader_would_refuse_is_not_written(arrays: dict[str, np.ndarray], message: str) -> None:
    file = io.BytesIO()
    with pytest.raises(BundleError, match=message):
        tensors.write(file, arrays)
    assert file.getvalue() == b""


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(BundleError):
        tensors.load(data, "file")


@given(st.binary(max_size=200), st.integers(0, 63))
def test_random_headers_are_refused_and_nothing_worse(text: bytes, cut: int) -> None:
    header = b"{" + text
    header += b" " * (-(8 + len(header)) % 64)
    with pytest.raises(BundleError):
        tensors.load(len(header).to_bytes(8, "little") + header + bytes(cut), "file")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    dtype=st.sampled_from(["F32", "U8", "F16"]) | JSON,
    shape=st.lists(st.integers(-2, 9), max_size=3) | JSON,
    offsets=st.tuples(st.integers(-2, 40), st.integers(-2, 40)) | JSON,
    size=st.integers(0, 64),
)
@settings(max_examples=300)
def test_a_random_description_is_refused_or_describes_the_bytes_exactly(
    dtype: object, shape: object, offsets: object, size: int
) -> None:
    header = msgspec.json.encode({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})
    header += b" " * (-(8 + len(header)) % 64)
    try:
        loaded = tensors.load(len(header).to_bytes(8, "little") + header + bytes(size), "file")
    except BundleError:
        return
    assert loaded["a"].nbytes == size


def test_the_library_is_asked_too(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(encode({"a": np.zeros(4, np.float32)}))
    tensors.confirm(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="the safetensors library refuses it"):
        tensors.confirm(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537])
def test_nan_and_infinity_are_found_wherever_they_are(dtype: type[np.floating], size: int) -> None:
    largest = np.finfo(dtype).max
    array = np.full(size, -largest, dtype)
    assert all_finite(array)
    for bad in (np.nan, np.inf, -np.inf):
        for index in {0, size // 2, size - 1}:
            poisoned = array.copy()
            poisoned[index] = bad
            assert not all_finite(poisoned)
