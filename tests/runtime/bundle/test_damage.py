"""Every flipped bit and every lost byte of a bundle is refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flawline.runtime import bundle
from flawline.runtime.errors import BundleError

TENSOR_FILES = ["statistics.safetensors", "golden.safetensors"]
NAMES = ["manifest.sha256", "manifest.json", "features.onnx", *TENSOR_FILES]

# The files are mended after every example.
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def flip(file: BinaryIO, bit: int) -> None:
    file.seek(bit // 8)
    byte = file.read(1)[0]
    file.seek(bit // 8)
    file.write(bytes([byte ^ 1 << bit % 8]))


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_is_refused(written: bundle.Bundle, name: str) -> None:
    path = written.path / name
    accepted = []
    # In place, a byte at a time: replacing a file makes some file systems wait for the disk.
    with path.open("r+b", buffering=0) as file:
        for bit in range(8 * path.stat().st_size):
            flip(file, bit)
            try:
                bundle.read(written.path)
                accepted.append(bit)
            except BundleError:
                pass
            flip(file, bit)
    assert accepted == []
    bundle.read(written.path)


@pytest.mark.parametrize("name", NAMES)
def test_truncated_file_is_refused_at_every_length(written: bundle.Bundle, name: str) -> None:
    path = written.path / name
    accepted = []
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        try:
            bundle.read(written.path)
            accepted.append(length)
        except BundleError:
            pass
    assert accepted == []


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=400))
@same_folder
def test_random_bytes_in_place_of_a_file_are_refused(written: bundle.Bundle, name: str, data: bytes) -> None:
    with replaced(written.path / name, data), pytest.raises(BundleError):
        bundle.read(written.path)


@given(data=st.data())
@same_folder
def test_resealed_damage_is_refused_or_leaves_a_bundle_that_keeps_its_promises(
    written: bundle.Bundle, reseal: Any, data: st.DataObject
) -> None:
    """A forger makes all hashes right again: then the checks of the content are alone."""
    name = data.draw(st.sampled_from(TENSOR_FILES))
    path = written.path / name
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    with (
        replaced(path, flipped(content, bit)),
        replaced(written.path / "manifest.json", (written.path / "manifest.json").read_bytes()),
        replaced(written.path / "manifest.sha256", (written.path / "manifest.sha256").read_bytes()),
    ):
        reseal(written.path)
        try:
            opened = bundle.read(written.path)
        except BundleError:
            return
        assert {name: (array.dtype, array.shape) for name, array in opened.statistics.items()} == {
            name: (array.dtype, array.shape) for name, array in written.statistics.items()
        }
        assert all(np.isfinite(array).all() for array in opened.statistics.values())


@given(data=st.data())
@same_folder
def test_random_forged_manifest_is_refused_and_nothing_worse(
    written: bundle.Bundle, forge: Any, data: st.DataObject
) -> None:
    path = written.path / "manifest.json"
    content = path.read_bytes()
    begin = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(begin, min(begin + 40, len(content))))
    patch = data.draw(st.binary(max_size=20) | st.sampled_from([b"-1", b"1e999", b"null", b"[]", b"{}", b'""', b"0.5"]))
    with (
        replaced(path, content),
        replaced(written.path / "manifest.sha256", (written.path / "manifest.sha256").read_bytes()),
    ):
        forge(written.path, content[:begin] + patch + content[end:])
        try:
            opened = bundle.read(written.path)
        except BundleError:
            return
        # What passes differs in facts that describe the bundle and do not decide how it is read.
        assert opened.statistics.keys() == written.statistics.keys()
