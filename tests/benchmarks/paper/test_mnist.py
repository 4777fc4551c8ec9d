"""MNIST read from arrays, and everything that is no MNIST refused."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawline.benchmarks.paper import mnist
from flawline.benchmarks.paper.mnist import read_mnist
from flawline.runtime.errors import InputError


def arrays(**others: Any) -> dict[str, Any]:
    images = np.arange(6 * 28 * 28, dtype=np.uint32).reshape(6, 28, 28).astype(np.uint8)
    labels = np.array([5, 0, 9, 0, 4, 1], np.uint8)
    return {"x_train": images, "y_train": labels, "x_test": images[:3], "y_test": labels[:3]} | others


def written(path: Path, **others: Any) -> Path:
    np.savez(path, **arrays(**others))
    return path


@pytest.mark.parametrize(("name", "given"), [("mnist.npz", "mnist.npz"), ("mnist.npz", ""), ("mnist/mnist.npz", "")])
def test_file_or_folder_is_read(tmp_path: Path, name: str, given: str) -> None:
    (tmp_path / "mnist").mkdir()
    written(tmp_path / name)
    train, test = read_mnist(tmp_path / given)
    expected = arrays()
    np.testing.assert_array_equal(train.images, expected["x_train"])
    np.testing.assert_array_equal(test.labels, [5, 0, 9])
    np.testing.assert_array_equal(train.of(range(5)), expected["x_train"][[1, 3, 4, 5]])


@pytest.mark.shared_data
def test_mnist_itself_is_read(shared_data: Path) -> None:
    train, test = read_mnist(shared_data)
    assert (len(train.images), len(test.images)) == (60_000, 10_000)
    assert (len(train.of(range(5))), len(test.of(range(5, 10)))) == (30_596, 4_861)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"x_train": np.zeros((6, 28, 28))}, r"x_train is float64 \(6, 28, 28\); expected uint8"),
        ({"x_test": np.zeros((3, 28, 27), np.uint8)}, r"x_test is uint8 \(3, 28, 27\); expected uint8"),
        ({"y_test": np.zeros(2, np.uint8)}, r"y_test is uint8 \(2,\); expected whole numbers \(3,\)"),
        ({"y_train": np.zeros(6)}, r"y_train is float64 \(6,\)"),
        ({"y_train": np.array([0, 1, 2, 3, 4, 10])}, "y_train is from 0 to 10; expected 0 to 9"),
        ({"y_train": np.array([0, 1, 2, 3, 4, -1])}, "y_train is from -1 to 4; expected 0 to 9"),
        ({"y_train": np.array([{}] * 6, object)}, "mnist.npz is no MNIST in .npz: Object arrays cannot be loaded"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, others: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_mnist(written(tmp_path / "mnist.npz", **others))


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file, and no folder with mnist\.npz"):
        read_mnist(tmp_path / "absent.npz")
    path = tmp_path / "mnist.npz"
    path.write_bytes(b"digits")
    with pytest.raises(InputError, match=r"is no MNIST in \.npz"):
        read_mnist(path)
    np.savez(path, x_train=arrays()["x_train"])
    with pytest.raises(InputError, match="no y_train, x_test, y_test in it"):
        read_mnist(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "mnist.npz").read_bytes()
    for length in range(0, len(whole), 997):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"is no MNIST in \.npz"):
            read_mnist(tmp_path / "cut.npz")


def test_an_archive_that_would_fill_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "_MOST_BYTES", 1000)
    with pytest.raises(InputError, match="unpack to more than 1,000 bytes"):
        read_mnist(written(tmp_path / "mnist.npz"))


def test_a_header_of_more_values_than_there_are_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays().items():
            file = io.BytesIO()
            np.save(file, value)
            shape = b"(6, 28, 28)", b"(9, 28, 28)"
            archive.writestr(f"{name}.npy", file.getvalue().replace(*shape))
    with pytest.raises(InputError, match=r"is no MNIST in \.npz"):
        read_mnist(path)
