"""Bad input to commands: one clear line, exit 2, nothing written."""

import shutil

import cv2
import numpy as np
import pytest

from flawline.__main__ import main


def run(words, capsys):
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def folder(tmp_path, good_images):
    """A copy of the good images that a test may spoil."""
    copy = tmp_path / "good"
    shutil.copytree(good_images, copy)
    return copy


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def two_images(folder):
    for path in sorted(folder.iterdir())[2:]:
        path.unlink()


def one_colour(folder):
    for path in folder.iterdir():
        cv2.imwrite(str(path), np.full((96, 128), 77, np.uint8))


def one_pixel(folder):
    cv2.imwrite(str(folder / "good_07.png"), np.zeros((1, 1), np.uint8))


def sixteen_bit(folder):
    cv2.imwrite(str(folder / "good_07.png"), np.zeros((96, 128), np.uint16))


def rgba(folder):
    cv2.imwrite(str(folder / "good_07.png"), np.zeros((96, 128, 4), np.uint8))


def text(folder):
    (folder / "good_07.png").write_text("not a picture")


def no_bytes(folder):
    (folder / "good_07.png").write_bytes(b"")


def truncated(folder):
    path = folder / "good_07.png"
    path.write_bytes(path.read_bytes()[:-200])


def another_mode(folder):
    cv2.imwrite(str(folder / "good_07.png"), np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8))


def only_folders(folder):
    for name in ("a", "b"):
        (folder / name).mkdir()
    for path in folder.glob("*.png"):
        path.rename(folder / "a" / path.name)


def missing(folder):
    shutil.rmtree(folder)


SPOILT_IMAGES = [
    (one_pixel, "good_07.png is 1 x 1 px"),
    (sixteen_bit, "good_07.png has 16 bits per channel; expected 8"),
    (rgba, "good_07.png has an alpha channel"),
    (text, "good_07.png is not an image"),
    (no_bytes, "good_07.png is empty"),
    (truncated, "good_07.png is truncated"),
]
SPOILT_FOLDERS = [
    *SPOILT_IMAGES,
    (empty, "holds no image"),
    (two_images, "2 good images"),
    (one_colour, "do not vary"),
    (another_mode, "good_07.png is in colour"),
    (only_folders, "holds sub-folders (a, b) and no image"),
    (missing, "does not exist"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT_FOLDERS, ids=lambda value: getattr(value, "__name__", ""))
def test_fit_refuses_a_spoilt_folder(spoil, message, folder, tiny_network, tmp_path, capsys):
    spoil(folder)
    out = tmp_path / "made.flaw"
    words = ["fit", folder, "--out", out, "--backbone", tiny_network, "--layers", "fine,coarse", "--image-size", 64]
    status, stdout, stderr = run(words, capsys)
    assert (status, stdout) == (2, "")
    lines = [line for line in stderr.splitlines() if line.startswith("flawline fit: ")]
    assert len(lines) == 1
    assert stderr.splitlines()[-1] == lines[0]
    assert message in lines[0]
    assert [path.name for path in tmp_path.iterdir() if path != folder] == []


@pytest.mark.parametrize(("spoil", "message"), SPOILT_IMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_fit_goes_on_without_a_bad_image_if_asked_and_says_why(spoil, message, folder, tiny_network, tmp_path, capsys):
    spoil(folder)
    words = ["fit", folder, "--out", tmp_path / "made.flaw", "--backbone", tiny_network, "--layers", "fine,coarse"]
    status, _, stderr = run([*words, "--image-size", 64, "--skip-bad"], capsys)
    assert status == 0
    (left_out,) = (line for line in stderr.splitlines() if line.startswith("left out: "))
    assert message in left_out


BAD_OPTIONS = [
    (["--dim", 21], "have 20 channels"),
    (["--dim", 0], "dimension is 0; expected 1 or more"),
    (["--dim", -3], "dimension is -3; expected 1 or more"),
    (["--dim", 10, "--projection", "none"], "must be 20, since projection 'none' keeps them all"),
    (["--backbone", "resnet9000"], "backbone 'resnet9000' is unknown; expected one of"),
    (["--backbone", "resnet18"], "--weights FILE"),
    (["--backbone", "{good}/none.onnx"], "none.onnx: no such file"),
    (["--layers", "fine,nowhere"], "computes no tensor nowhere"),
    (["--epsilon", 0], "epsilon is 0.0"),
    (["--epsilon", "nan"], "epsilon is nan"),
    (["--false-reject-rate", 0.001], "smallest rate that can be had"),
    (["--false-reject-rate", 1.5], "between 0 and 1"),
    (["--calibration-images", 39], "must remain to fit"),
    (["--fit-images", 1000], "1000 images to fit"),
    (["--group-by", "("], "no regular expression"),
    (["--image-size", 7], "image size is 7"),
    (["--map-stride", 5], "map stride 5 does not divide"),
    (["--map-stride", 0], "map stride 0 does not divide"),
    (["--mean", "-1", "--std", 0], "std above zero"),
    (["--shrinkage", 3], "expected 0 to 1"),
    (["--components", 1000], "1000 components"),
    (["--components", 0], "0 components; expected 1 to"),
    (["--smoothing", -1], "smoothing is -1.0 px"),
    (["--smoothing", "nan"], "smoothing is nan px"),
    (["--threads", 0], "threads is 0"),
    (["--seed", -1], "seed is -1; expected 0 to"),
    (["--weights", "random"], "does not go with an ONNX file"),
]


@pytest.mark.parametrize(
    ("extra", "message"), BAD_OPTIONS, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_fit_refuses_a_bad_option(extra, message, good_images, tiny_network, tmp_path, capsys):
    words = ["fit", good_images, "--out", tmp_path / "made.flaw", "--backbone", tiny_network, "--layers", "fine,coarse"]
    words += ["--image-size", 64, *(str(word).format(good=good_images) for word in extra)]
    if extra[0] == "--backbone" and not str(extra[1]).endswith(".onnx"):
        words[words.index("--layers") : words.index("--layers") + 2] = []
    status, stdout, stderr = run(words, capsys)
    assert (status, stdout) == (2, "")
    assert message in stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dimension", [-3, 0, 21, 5000])
def test_an_impossible_dimension_is_refused_before_an_image_is_decoded(
    dimension, folder, tiny_network, tmp_path, capsys
):
    # Whoever decoded this image would complain of it first.
    text(folder)
    words = ["fit", folder, "--out", tmp_path / "made.flaw", "--backbone", tiny_network, "--layers", "fine,coarse"]
    status, stdout, stderr = run([*words, "--image-size", 64, "--dim", dimension], capsys)
    assert (status, stdout) == (2, "")
    assert stderr.startswith(f"flawline fit: dimension is {dimension}; ")
    assert stderr.count("\n") == 1


def test_a_weights_file_of_another_network_is_refused(shared_data, good_images, tmp_path, capsys):
    weights = next((shared_data / "resnet18").glob("*.npz"))
    words = ["fit", good_images, "--out", tmp_path / "made.flaw", "--backbone", "efficientnet-lite0"]
    status, _, stderr = run([*words, "--weights", weights], capsys)
    assert status == 2
    assert "of efficientnet-lite0: another network's weights" in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [*SPOILT_IMAGES[1:], (another_mode, "good_07.png is RGB; expected grey")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_score_refuses_a_bad_image_or_goes_on_if_asked(spoil, message, folder, tiny_bundle, capsys):
    spoil(folder)
    status, stdout, stderr = run(["score", tiny_bundle, folder], capsys)
    assert status == 2
    assert message in stderr
    assert len(stdout.splitlines()) == 7
    status, stdout, stderr = run(["score", tiny_bundle, folder, "--skip-bad"], capsys)
    assert status == 2
    assert message in stderr
    assert len(stdout.splitlines()) == 39


@pytest.mark.parametrize("command", ["score", "info", "verify"])
def test_a_bundle_that_is_none_is_refused(command, tmp_path, good_images, capsys):
    words = [command, tmp_path / "nowhere"] + ([good_images] if command == "score" else [])
    status, _, stderr = run(words, capsys)
    assert status == 2
    assert "nowhere does not exist; expected the folder of a bundle" in stderr


def test_verify_says_no_to_a_damaged_bundle(tiny_bundle, tmp_path, capsys):
    copy = tmp_path / "damaged.flaw"
    shutil.copytree(tiny_bundle, copy)
    file = copy / "features.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    status, stdout, _ = run(["verify", copy], capsys)
    assert status == 1
    assert stdout.startswith("DAMAGED: ")


def test_verify_says_no_where_golden_frames_score_differently(tiny_bundle, tmp_path, capsys):
    # Whole and hashed, but its means were shifted after the golden frames were scored.
    from flawline.runtime import bundle as bundles

    original = bundles.read(tiny_bundle)
    statistics = dict(original.statistics)
    statistics["means"] = statistics["means"] * np.float32(1.05)
    copy = bundles.write(tmp_path / "shifted.flaw", original.manifest, original.features, statistics, original.golden)
    status, stdout, _ = run(["verify", copy.path], capsys)
    assert status == 1
    assert "WRONG" in stdout
