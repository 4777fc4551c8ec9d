"""`flawline score`: which images it takes, and what it says of them."""

import json

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime import Detector
from flawline.runtime.images import read_image, write_image
from flawline.runtime.scored_image import ScoredImage

SIDE = 32


def run(capsys, *words):
    status = main(["score", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def image(tmp_path):
    """A grey image of the good images' size with a bright spot, which the bundle rejects."""
    pixels = np.full((SIDE, SIDE), 20, np.uint8)
    pixels[8:12, 4:10] = 200
    write_image(tmp_path / "spot.png", pixels)
    return tmp_path / "spot.png"


def test_json_says_what_the_detector_says(through, image, capsys):
    status, out, err = run(capsys, through, image, "--json")
    assert (status, err) == (0, "")
    with Detector.open(through) as detector:
        result = detector(read_image(image))
    region = {"x": 4, "y": 8, "width": 6, "height": 4, "area_px": 24, "peak": 200.0, "mean": 200.0}
    assert json.loads(out) == {
        "image": str(image),
        "score": result.score,
        "threshold": 100.0,
        "p_value": 0.5,
        "verdict": "reject",
        "regions": [region],
        "engine": result.engine,
    }
    assert tuple(json.loads(out)) == ScoredImage.__struct_fields__


def test_text_is_one_line_per_image(through, image, capsys):
    _, out, _ = run(capsys, through, image)
    assert out == f"reject  score     200.000  p 0.5000  {image}  1 region\n"


@pytest.mark.parametrize("any_size", [[], ["--any-size"]])
def test_an_image_too_small_to_mean_anything_is_refused_by_name(through, tmp_path, capsys, any_size):
    write_image(tmp_path / "speck.png", np.zeros((1, 1), np.uint8))
    status, out, err = run(capsys, through, tmp_path / "speck.png", *any_size)
    assert (status, out) == (2, "")
    assert "speck.png is 1 x 1 px; expected at least 16 px each way" in err


def test_an_image_of_another_size_than_the_good_images_is_scored_only_if_asked(through, tmp_path, capsys):
    path = tmp_path / "wide.png"
    write_image(path, np.full((SIDE, 2 * SIDE), 9, np.uint8))
    status, out, err = run(capsys, through, path)
    assert (status, out) == (2, "")
    assert "wide.png is 64 x 32 px; expected 32 x 32 px like the good images (--any-size goes on)" in err
    status, out, err = run(capsys, through, path, "--any-size")
    assert (status, err) == (0, "")
    assert out.startswith("good ")


def test_where_good_images_differed_in_size_any_is_scored(make_bundle, remade, tmp_path, capsys):
    unknown = {"source_height": None, "source_width": None}
    path = remade(make_bundle(tmp_path / "a.flaw"), tmp_path / "b.flaw", input=unknown).path
    write_image(tmp_path / "wide.png", np.full((SIDE, 2 * SIDE), 9, np.uint8))
    assert run(capsys, path, tmp_path / "wide.png")[0] == 0


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_threshold_that_is_not_finite_is_refused(through, image, capsys, value):
    status, out, err = run(capsys, through, image, f"--threshold={value}")
    assert (status, out) == (2, "")
    assert f"threshold is {value}; expected a finite score" in err


def test_a_frame_that_cannot_be_scored_is_skipped_by_name_if_asked(make_bundle, graph, tmp_path, capsys):
    path = make_bundle(tmp_path / "log.flaw", features=graph(SIDE, SIDE, "Log"), golden=()).path
    folder = tmp_path / "shots"
    folder.mkdir()
    write_image(folder / "a_dark.png", np.zeros((SIDE, SIDE), np.uint8))
    write_image(folder / "b_grey.png", np.full((SIDE, SIDE), 50, np.uint8))
    status, out, err = run(capsys, path, folder, "--backend", "onnxruntime", "--skip-bad")
    assert status == 2
    assert "a_dark.png: the score is nan" in err
    assert "b_grey.png" in out
    status, out, err = run(capsys, path, folder, "--backend", "onnxruntime")
    assert (status, out) == (2, "")
    assert "a_dark.png: the score is nan" in err


def test_a_folder_for_heatmaps_that_is_a_file_is_refused_in_one_line(through, image, capsys):
    status, out, err = run(capsys, through, image, "--heatmaps", image)
    assert (status, out) == (2, "")
    assert err.startswith(f"flawline score: {image} cannot be written: ")
    assert err.count("\n") == 1
