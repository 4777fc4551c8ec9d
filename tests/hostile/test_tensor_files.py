"""Every malformed tensor file is refused with the message of its own cause."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flawline.runtime.bundle import tensors
from flawline.runtime.errors import BundleError

FOLDER = Path(__file__).parent

CAUSES = {
    "empty": "holds 0 bytes; expected at least the 8",
    "length_truncated": "holds 5 bytes; expected at least the 8",
    "length_zero": r"begins with b''; expected \{",
    "length_over_cap": "announces a header of 1048577 bytes; expected at most 1048576",
    "length_maximum": "announces a header of 18446744073709551615 bytes; expected at most 1048576",
    "header_longer_than_file": "announces a header of 120 bytes, and only 56 follow",
    "header_misaligned": "the data begin at byte 136; expected a multiple of 64",
    "header_begins_with_space": r"begins with b' '; expected \{",
    "header_is_an_array": r"begins with b'\['; expected \{",
    "header_not_json": "the header is not JSON",
    "header_not_utf8": r"the header is not UTF-8 \(byte 2\)",
    # How deep an interpreter goes differs by version; one that reaches the bottom finds no tensor there.
    "header_nested_deeply": "the header is nested too deeply|not described by exactly",
    "header_holds_nan": "the header is not JSON",
    "header_with_text_after_it": "the header is not JSON",
    "header_padded_with_zeros": "the header is not JSON",
    "key_twice": "holds the key 'a' twice",
    "key_twice_by_escape": "holds the key 'a' twice",
    "inner_key_twice": "holds the key 'dtype' twice",
    "no_tensor": "holds no tensor",
    "metadata_not_an_object": "__metadata__ must be an object of strings",
    "metadata_not_strings": "__metadata__ must be an object of strings",
    "name_empty": "tensor name ''; expected lower-case letters",
    "name_of_other_letters": r"tensor name '\\u0430'; expected lower-case letters",
    "name_of_other_letters_unescaped": r"tensor name '\\u0430'; expected lower-case letters",
    "name_lone_surrogate": "the header is not JSON .*surrogate",
    "name_with_zero_byte": r"tensor name 'a\\x00b'; expected lower-case letters",
    "name_with_escape_sequence": r"tensor name 'a\\x1b\[2J'; expected lower-case letters",
    "name_with_path": r"tensor name '\.\./a'; expected lower-case letters",
    "name_too_long": "tensor name 'a{65}'; expected lower-case letters",
    "tensor_not_an_object": "not described by exactly dtype, shape and data_offsets",
    "tensor_without_dtype": "not described by exactly dtype, shape and data_offsets",
    "tensor_with_extra_key": "not described by exactly dtype, shape and data_offsets",
    "dtype_unknown": "dtype 'BF16'; expected one of F64, F32, I32, F16, I8, U8",
    "dtype_not_text": r"""dtype "\['F32'\]"; expected one of""",
    "shape_not_a_list": "the shape is not a list of 1 to 8 integers",
    "shape_scalar": "the shape is not a list of 1 to 8 integers",
    "shape_zero": "has a side of 0; expected at least 1",
    "shape_negative": "has a side of -2; expected at least 1",
    "shape_fraction": "the shape is not a list of 1 to 8 integers",
    "shape_boolean": "the shape is not a list of 1 to 8 integers",
    "shape_of_nine_axes": "the shape is not a list of 1 to 8 integers",
    "shape_huge": r"spans 16 bytes; its shape and dtype need more than 2\^63",
    "shape_wraps_64_bits": r"spans 0 bytes; its shape and dtype need more than 2\^63",
    "shape_beyond_64_bits": r"spans 16 bytes; its shape and dtype need more than 2\^63",
    "offsets_not_a_list": "data_offsets are not two integers",
    "offsets_of_three": "data_offsets are not two integers",
    "offsets_fraction": "data_offsets are not two integers",
    "offsets_negative": "begins at byte -16; expected 0 or more",
    "offsets_reversed": r"data_offsets \[16, 0\] are reversed",
    "offsets_maximum": "a hole of 18446744073709551600 bytes before tensor a",
    "span_too_short": "spans 12 bytes; its shape and dtype need 16",
    "span_too_long": "spans 20 bytes; its shape and dtype need 16",
    "tensor_misaligned": "begins at byte 3; expected a multiple of its item size, 4",
    "tensors_overlap": "tensor b begins at byte 15, another ends at 16: they overlap",
    "tensors_share_bytes": "tensor b begins at byte 0, another ends at 16: they overlap",
    "hole_before_first": "a hole of 4 bytes before tensor a",
    "hole_between": "a hole of 1 bytes before tensor b",
    "data_truncated": "the tensors need 19 bytes of data, and 18 are there",
    "data_missing": "the tensors need 19 bytes of data, and 0 are there",
    "data_too_long": "1 bytes follow the last tensor",
}


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_hostile", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generator_still_makes_the_committed_files(make: ModuleType) -> None:
    committed = {path.stem: path.read_bytes() for path in FOLDER.glob("*.safetensors")}
    assert committed == make.FILES


def test_every_committed_file_has_a_cause() -> None:
    assert {path.stem for path in FOLDER.glob("*.safetensors")} == CAUSES.keys()


def test_what_the_hostile_files_are_derived_from_is_accepted(make: ModuleType) -> None:
    loaded = tensors.load(make.build(make.GOOD), "good")
    np.testing.assert_array_equal(loaded["a"].view(np.uint8).ravel(), np.arange(16))
    np.testing.assert_array_equal(loaded["b"], [16, 17, 18])


@pytest.mark.parametrize("stem", CAUSES)
def test_malformed_tensor_file_is_refused(stem: str) -> None:
    path = FOLDER / f"{stem}.safetensors"
    with pytest.raises(BundleError, match=CAUSES[stem]) as caught:
        tensors.load(path.read_bytes(), str(path))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 300
