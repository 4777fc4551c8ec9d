"""Labelled images in folders, archives and IDX files: the same images are the same wherever they lie."""

import contextlib
import gzip
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flawline.calibration.labelled_images import LabelledImages, duplicates, read_images, read_labelled_images
from flawline.runtime.errors import InputError, ResourceError
from flawline.runtime.images import write_image
from flawline.runtime.resizing import resize_into

CLASSES = ("bolt", "nut", "washer")


def pixels(count: int = 7, height: int = 20, width: int = 24, colours: tuple[int, ...] = ()) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, *colours), np.uint8)


LABELS = np.array([2, 0, 1, 0, 2, 1, 0])


def folder_of(root: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[Any] = LABELS) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        write_image(root / CLASSES[label] / f"{number}.png", image)
    return root


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def idx_folder(root: Path, images: npt.NDArray[np.uint8], prefix: str = "train", ending: str = "-idx{}-ubyte") -> Path:
    root.mkdir(exist_ok=True)
    for kind, array in (("images", images), ("labels", LABELS.astype(np.uint8))):
        path = root / f"{prefix}-{kind}{ending.format(array.ndim)}"
        path.write_bytes(gzip.compress(idx(array)) if path.suffix == ".gz" else idx(array))
    return root


def check(found: LabelledImages, images: npt.NDArray[np.uint8], labels: npt.NDArray[Any] = LABELS) -> None:
    assert len(found) == len(images)
    assert found.labels.dtype == np.int64
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.images.stacked(), images)
    np.testing.assert_array_equal(np.stack([found.images[i] for i in range(len(images))]), images)
    assert len(set(found.sha256)) == len(set(found.names)) == len(images)


@pytest.mark.parametrize("colours", [(), (3,)])
@pytest.mark.parametrize("inside", [".", "train"])
def test_folder_holds_a_folder_for_each_class(tmp_path: Path, inside: str, colours: tuple[int, ...]) -> None:
    images = pixels(colours=colours)
    folder_of(tmp_path / inside, images)
    (tmp_path / inside / "readme.txt").write_text("no image")
    (tmp_path / inside / ".cache").mkdir()
    found = read_labelled_images(tmp_path)
    order = np.argsort(LABELS, kind="stable")
    check(found, images[order], LABELS[order])
    assert found.classes == CLASSES
    assert found.channels == (3 if colours else 1)
    assert found.names[0] == str(tmp_path / inside / "bolt" / "1.png")


def test_folders_of_the_test_part_need_not_hold_every_class(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", pixels())
    folder_of(tmp_path / "test", pixels(1), LABELS[:1])
    found = read_labelled_images(tmp_path, part="test")
    assert (found.classes, len(found)) == (("washer",), 1)


@pytest.mark.parametrize("names", [("x_train", "y_train"), ("images", "labels")])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_archive_holds_images_and_labels(tmp_path: Path, names: tuple[str, str], dtype: Any) -> None:
    images = pixels()
    np.savez(tmp_path / "a.npz", **{names[0]: images, names[1]: LABELS.astype(dtype)})
    found = read_labelled_images(tmp_path / "a.npz")
    check(found, images)
    assert found.classes == ("0", "1", "2")
    assert found.names[3] == f"{tmp_path / 'a.npz'}: train image 3"


def test_archive_holds_images_to_test_on(tmp_path: Path) -> None:
    images = pixels()
    np.savez(tmp_path / "a.npz", x_train=images, y_train=LABELS, x_test=images[::-1], y_test=LABELS[::-1])
    check(read_labelled_images(tmp_path / "a.npz", part="test"), images[::-1], LABELS[::-1])


def test_classes_are_the_labels_that_are_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=pixels(), y_train=np.array([1, 4, 9])[LABELS])
    found = read_labelled_images(tmp_path / "a.npz")
    assert found.classes == ("1", "4", "9")
    np.testing.assert_array_equal(found.labels, LABELS)


@pytest.mark.parametrize("ending", ["-idx{}-ubyte", "-idx{}-ubyte.gz", ".idx{}-ubyte"])
def test_idx_files_hold_images_and_labels(tmp_path: Path, ending: str) -> None:
    images = pixels()
    idx_folder(tmp_path, images, ending=ending)
    check(read_labelled_images(tmp_path), images)
    idx_folder(tmp_path, images[::-1], "t10k", ending)
    np.testing.assert_array_equal(read_labelled_images(tmp_path, part="test").images.stacked(), images[::-1])
    np.testing.assert_array_equal(read_images(tmp_path).images.stacked(), images)


@pytest.mark.parametrize("colours", [(), (3,)])
@pytest.mark.parametrize("side", [16, 40])
def test_images_are_resized_as_on_the_device_from_files_and_arrays(
    tmp_path: Path, side: int, colours: tuple[int, ...]
) -> None:
    images = pixels(colours=colours)[np.argsort(LABELS, kind="stable")]
    labels = np.sort(LABELS)
    expected = np.empty((len(images), side, side, *colours), np.uint8)
    for image, slot in zip(images, expected, strict=True):
        resize_into(image, slot, "area" if side == 16 else "linear")
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    for path in (folder_of(tmp_path / "folder", images, labels), tmp_path / "a.npz"):
        found = read_labelled_images(path, side)
        check(found, expected, labels)
        assert found.interpolation == ("area" if side == 16 else "linear")
    linear = read_labelled_images(tmp_path / "a.npz", 16, interpolation="linear")
    assert linear.interpolation == "linear"
    assert (linear.fingerprint != found.fingerprint) or side == 16


def test_chosen_images_keep_their_labels_and_classes(tmp_path: Path) -> None:
    images = pixels()
    np.savez(tmp_path / "a.npz", images=images, labels=LABELS)
    order = np.argsort(LABELS, kind="stable")
    folder = read_labelled_images(folder_of(tmp_path / "folder", images))
    array = read_labelled_images(tmp_path / "a.npz")
    indices = np.array([5, 0, 2])
    for found, whole, labels in ((folder, images[order], LABELS[order]), (array, images, LABELS)):
        chosen = found.chosen(indices)
        check(chosen, whole[indices], labels[indices])
        assert chosen.classes == found.classes
        assert chosen.names == tuple(found.names[i] for i in indices)


def test_duplicates_are_found_whatever_the_format(tmp_path: Path) -> None:
    images = pixels()
    np.savez(tmp_path / "a.npz", images=images, labels=LABELS)
    good = read_labelled_images(tmp_path / "a.npz")
    others = tmp_path / "others" / "deep"
    others.mkdir(parents=True)
    write_image(others / "same.bmp", images[4])
    write_image(others / "other.png", images[4] ^ 1)
    anomalies = read_images(tmp_path / "others", 32)
    assert [Path(name).name for name in anomalies.names] == ["other.png", "same.bmp"]
    assert duplicates(anomalies, good) == [(str(others / "same.bmp"), f"{tmp_path / 'a.npz'}: train image 4")]
    assert not duplicates(replace(anomalies, names=("x",), sha256=("y",)), good)


def test_published_digits_are_read(shared_data: Path) -> None:
    found = read_labelled_images(shared_data / "mnist" / "mnist.npz", part="test")
    assert (len(found), found.images.shape, found.classes) == (10_000, (28, 28), tuple("0123456789"))
    assert np.bincount(found.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_bad_folder_is_refused(tmp_path: Path) -> None:
    good = folder_of(tmp_path / "good", pixels())
    cases: list[tuple[Path, str]] = []

    def case(name: str, message: str) -> Path:
        cases.append((folder_of(tmp_path / name, pixels()), message))
        return tmp_path / name

    cases.append(
        (folder_of(tmp_path / "one", pixels(3), np.array([1, 1, 1])), r"holds one class \(nut\); expected two")
    )
    cases.append(
        (folder_of(tmp_path / "single", pixels(3), np.array([1, 0, 1])), "class bolt has one image; expected 2")
    )
    write_image(case("mixed", "are alike|is grey and .* is in colour") / "nut" / "c.png", pixels(1, colours=(3,))[0])
    write_image(case("sizes", r"is of \(20, 24\) px and .*c.png of \(20, 25\)") / "nut" / "c.png", pixels(1, 20, 25)[0])
    write_image(case("tiny", "c.png is 24 x 15 px; expected at least 16") / "nut" / "c.png", pixels(1, 15)[0])
    write_image(case("stray", "c.png is in no class; expected a folder for each class") / "c.png", pixels(1)[0])
    (case("damaged", "c.png is not an image") / "nut" / "c.png").write_bytes(b"nothing")
    (case("empty", "tools holds no image") / "tools").mkdir()
    (case("unclear", r"holds a folder 'a\\nb'; expected names of classes that can be printed") / "a\nb").mkdir()
    (tmp_path / "nothing").mkdir()
    cases.append((tmp_path / "nothing", "holds no class; expected two or more"))
    cases.append((tmp_path / "missing", "expected a folder of images, an .npz file, or a folder with IDX files"))
    cases.append((good / "nut" / "2.png", "expected a folder of images, an .npz file"))
    for path, message in cases:
        with pytest.raises(InputError, match=message):
            read_labelled_images(path)
    with pytest.raises(InputError, match="holds no folder test"):
        read_labelled_images(good, part="test")
    assert read_labelled_images(tmp_path / "sizes", 16).images.shape == (16, 16)


class Payload:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "holds images; expected x_train and y_train or images and labels"),
        ({"images": pixels().astype(np.float32)}, r"images float32 \(7, 20, 24\); expected uint8"),
        ({"images": pixels(colours=(2,))}, r"images uint8 \(7, 20, 24, 2\); expected uint8 \(N, h, w\) or"),
        ({"images": pixels()[:, 0]}, r"images uint8 \(7, 24\)"),
        ({"images": pixels(0), "labels": LABELS[:0]}, r"images uint8 \(0, 20, 24\)"),
        ({"images": pixels(7, 15)}, "an image is 24 x 15 px; expected at least 16"),
        ({"labels": LABELS[:6]}, r"labels int64 \(6,\); expected whole numbers \(7,\), one per image"),
        ({"labels": LABELS[:, None]}, r"labels int64 \(7, 1\)"),
        ({"labels": LABELS.astype(float)}, "labels float64"),
        ({"labels": LABELS - 1}, "labels from -1 to 1; expected 0 to 65535"),
        ({"labels": LABELS + 65534}, "labels from 65534 to 65536; expected 0 to 65535"),
        ({"labels": np.full(7, 1 << 63, np.uint64)}, "expected 0 to 65535"),
        ({"labels": LABELS * 0}, r"holds one class \(0\)"),
        ({"labels": np.array([0, 1, 1, 1, 1, 1, 1])}, "class 0 has one image; expected 2 or more"),
    ],
)  # fmt: skip
def test_bad_archive_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {"images": pixels(), "labels": LABELS, **changes}
    np.savez(tmp_path / "a.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=message):
        read_labelled_images(tmp_path / "a.npz")


def test_archive_of_objects_is_refused_without_unpickling_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.array([Payload(tmp_path / "ran")] * 7), labels=LABELS)
    with pytest.raises(InputError, match=r"a.npz: 'images.npy' holds Python objects, which are not read"):
        read_labelled_images(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_archive_that_announces_what_it_does_not_hold_is_refused(tmp_path: Path) -> None:
    """Before anything of that size is allocated."""
    import io
    import zipfile

    for shape, message in (
        ((1 << 40, 20, 24), "which is not what it holds"),
        ((-7, 20, 24), "archive of arrays|holds"),
    ):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("images.npy", header.getvalue() + pixels().tobytes())
            archive.writestr("labels.npy", b"")
        with pytest.raises(InputError, match=message):
            read_labelled_images(tmp_path / "a.npz")


def test_damaged_archive_is_refused_or_harmless(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=pixels(), labels=LABELS)
    whole = (tmp_path / "a.npz").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "a.npz").write_bytes(whole[:length])
        with pytest.raises(InputError, match="is no archive of arrays, or damaged"):
            read_labelled_images(tmp_path / "a.npz")
    for position in range(0, len(whole), 41):
        (tmp_path / "a.npz").write_bytes(whole[:position] + bytes((whole[position] ^ 0x40,)) + whole[position + 1 :])
        with contextlib.suppress(InputError):
            check(read_labelled_images(tmp_path / "a.npz"), pixels())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with ; expected 00000803"),
        (b"\0\0\x08\x01" + bytes(12), "begins with 00000801; expected 00000803, an IDX file of 3 axes"),
        (b"\0\0\x0d\x03" + bytes(12), "begins with 00000d03"),
        (idx(pixels())[:-1], r"announces \(7, 20, 24\), 3360 bytes, and holds 3359; get it again"),
        (idx(pixels()) + b"\0", r"announces \(7, 20, 24\), 3360 bytes, and holds more"),
        (b"\0\0\x08\x03" + bytes(12), r"images uint8 \(0, 0, 0\)"),
    ],
)
@pytest.mark.parametrize("ending", ["-idx{}-ubyte", "-idx{}-ubyte.gz"])
def test_bad_idx_file_is_refused(tmp_path: Path, content: bytes, message: str, ending: str) -> None:
    idx_folder(tmp_path, pixels(), ending=ending)
    path = tmp_path / f"train-images{ending.format(3)}"
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    with pytest.raises(InputError, match=message):
        read_labelled_images(tmp_path)


def test_idx_file_that_announces_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path, pixels())
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    with pytest.raises(ResourceError, match=r"announces .* GB of memory"):
        read_labelled_images(tmp_path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path, pixels(), ending="-idx{}-ubyte.gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        b"no gzip",
        whole[:-6] + bytes(6),
        whole[:40] + b"\xff" * 40 + whole[80:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read, or is damaged"):
            read_labelled_images(tmp_path)


def test_images_without_their_labels_are_refused(tmp_path: Path) -> None:
    idx_folder(tmp_path, pixels())
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"holds no train-labels-idx1-ubyte, nor that with .gz"):
        read_labelled_images(tmp_path)
    assert len(read_images(tmp_path)) == 7
