"""`flawline fit --detector pca-pse`: what it prints, and what it refuses in a line."""

import json
import os
import shutil

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.runtime import memory
from flawline.runtime.images import list_images, read_image, write_image


def fit(good, out, *words):
    given = ["--detector", "pca-pse", "--image-size", "48", "--threads", "1"]
    return main(["fit", str(good), "--out", str(out), *given, *map(str, words)])


def test_a_bundle_is_fitted_scored_evaluated_and_verified(good_tiles, labelled_tiles, tmp_path, capsys):
    out = tmp_path / "tiles.flaw"
    assert fit(good_tiles, out, "--few-shot", labelled_tiles, "--json") == 0
    facts = json.loads(capsys.readouterr().out)["manifest"]
    assert facts["detector"] == "reconstruction"
    assert facts["reconstruction"]["chosen"].startswith("by 15 labelled images")
    assert main(["verify", str(out)]) == 0
    assert main(["score", str(out), str(list_images(good_tiles)[0]), "--map", "error"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), str(labelled_tiles), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image_auroc"] > 0.5


def test_as_many_of_each_kind_as_wanted_are_drawn(good_tiles, labelled_tiles, tmp_path, capsys):
    assert fit(good_tiles, tmp_path / "a.flaw", "--few-shot", labelled_tiles, "--shots", 2, "--json") == 0
    facts = json.loads(capsys.readouterr().out)["manifest"]
    assert facts["reconstruction"]["chosen"].startswith("by 6 labelled images")


def refused(capsys, tmp_path, good, *words, out="a.flaw"):
    """The one line that a fit ends with, after which nothing is there."""
    before = sorted(path.name for path in tmp_path.iterdir())
    assert fit(good, tmp_path / out, *words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    complaints = [line for line in said.err.splitlines() if line.startswith("flawline fit: ")]
    assert len(complaints) == 1
    assert said.err.splitlines()[-1] == complaints[0]
    return complaints[0]


@pytest.mark.parametrize("components", [41, 60, 5000])
def test_fewer_images_than_components_are_refused(components, good_tiles, tmp_path, capsys):
    line = refused(capsys, tmp_path, good_tiles, "--components", components, "--sigma", 1)
    assert f"{components} components of " in line
    assert "expected fewer components than images" in line


@pytest.mark.parametrize("components", [0, -1, 1 << 40])
def test_components_that_cannot_be_are_refused(components, good_tiles, tmp_path, capsys):
    assert f"--components is {components}" in refused(capsys, tmp_path, good_tiles, "--components", components)


@pytest.mark.parametrize("kinds", [("good",), ("crack", "blowhole")], ids=["good alone", "defective alone"])
def test_labelled_examples_of_one_class_are_refused(kinds, good_tiles, labelled_tiles, tmp_path, capsys):
    folder = tmp_path / "labelled"
    for kind in kinds:
        shutil.copytree(labelled_tiles / "test" / kind, folder / kind)
    line = refused(capsys, tmp_path, good_tiles, "--few-shot", folder)
    assert "expected" in line
    assert str(folder) in line


def test_labelled_examples_all_of_which_are_fitted_are_refused(good_tiles, labelled_tiles, tmp_path, capsys):
    folder = tmp_path / "labelled"
    shutil.copytree(labelled_tiles / "test" / "crack", folder / "crack")
    shutil.copytree(good_tiles, folder / "good")
    assert "all of which are among those of the fit" in refused(capsys, tmp_path, good_tiles, "--few-shot", folder)


LAYOUTS = "expected a folder with test/good and test/KIND (the MVTec layout), or with good and KIND"


def test_a_folder_of_labelled_images_that_is_none_is_refused(good_tiles, tmp_path, capsys):
    def line(folder):
        return refused(capsys, tmp_path, good_tiles, "--few-shot", folder)

    assert f"{tmp_path / 'nowhere'} does not exist; {LAYOUTS}" in line(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'} is a file; {LAYOUTS}" in line(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'} holds no folder test/good or good; {LAYOUTS}" in line(tmp_path / "empty")


def test_a_folder_of_labelled_images_that_is_none_is_refused_before_good_ones_are_read(with_bad, tmp_path, capsys):
    list_images(with_bad)[0].write_bytes(b"no image")
    assert "does not exist" in refused(capsys, tmp_path, with_bad, "--few-shot", tmp_path / "nowhere")


def test_shots_of_no_folder_are_refused(good_tiles, tmp_path, capsys):
    assert "--shots 5 without --few-shot; expected the folder" in refused(capsys, tmp_path, good_tiles, "--shots", 5)


def test_images_that_are_set_apart_are_told_where_they_are_missed(good_tiles, tmp_path, capsys):
    line = refused(capsys, tmp_path, good_tiles, "--components", 36)
    assert "36 components of 33 images that are fitted, 8 of 41 being set apart to choose sigma by; " in line
    assert "or give --sigma as well, which frees them" in line
    line = refused(capsys, tmp_path, good_tiles, "--components", 41)
    assert "8 of 41 being set apart" in line
    assert "--sigma" not in line
    assert fit(good_tiles, tmp_path / "a.flaw", "--components", 36, "--sigma", 1) == 0


@pytest.mark.parametrize("labels", [False, True])
def test_a_fit_that_memory_does_not_hold_is_refused(labels, good_tiles, labelled_tiles, tmp_path, capsys, monkeypatch):
    # 9 matrices of 2 x 4 directions, and 64 MB.
    needed = 9 * 2 * 4 * 4 * 48 * 48 + (64 << 20)
    words = ("--components", 4, *(("--few-shot", labelled_tiles) if labels else ()))
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    line = refused(capsys, tmp_path, good_tiles, *words)
    assert "a fit of 4 components of grey images of 48 x 48 px needs about 0.1 GB of memory" in line
    assert line.endswith("; lower --components or --image-size")
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    assert fit(good_tiles, tmp_path / "a.flaw", *words) == 0


@pytest.fixture
def with_bad(good_tiles, tmp_path_factory):
    """A copy of the good tiles, to which a bad one comes."""
    folder = tmp_path_factory.mktemp("with_bad")
    shutil.copytree(good_tiles, folder, dirs_exist_ok=True)
    return folder


def test_an_unreadable_image_is_named(with_bad, tmp_path, capsys):
    victim = list_images(with_bad)[7]
    victim.write_bytes(victim.read_bytes()[:200])
    assert victim.name in refused(capsys, tmp_path, with_bad)
    assert fit(with_bad, tmp_path / "a.flaw", "--skip-bad") == 0
    assert f"left out: {victim}" in capsys.readouterr().err


def test_an_unreadable_labelled_image_is_named(good_tiles, labelled_tiles, tmp_path, capsys):
    folder = tmp_path / "labelled"
    shutil.copytree(labelled_tiles / "test", folder)
    for victim in list_images(folder / "crack"):
        victim.write_bytes(victim.read_bytes()[:200])
    assert "crack" in refused(capsys, tmp_path, good_tiles, "--few-shot", folder)


def test_a_pipe_among_the_labelled_images_is_named_and_not_waited_for(good_tiles, labelled_tiles, tmp_path, capsys):
    folder = tmp_path / "labelled"
    shutil.copytree(labelled_tiles / "test", folder)
    os.mkfifo(folder / "crack" / "pipe.png")
    assert "pipe.png is not a regular file" in refused(capsys, tmp_path, good_tiles, "--few-shot", folder)


def test_an_image_of_another_mode_is_named(with_bad, tmp_path, capsys):
    tile = read_image(list_images(with_bad)[0])
    write_image(with_bad / "colour.png", np.stack([tile] * 3, axis=2))
    assert "colour.png is in colour" in refused(capsys, tmp_path, with_bad)


def test_a_labelled_image_of_another_mode_is_named(good_tiles, labelled_tiles, tmp_path, capsys):
    folder = tmp_path / "labelled"
    shutil.copytree(labelled_tiles / "test" / "good", folder / "good")
    (folder / "spot").mkdir()
    tile = read_image(list_images(folder / "good")[0])
    write_image(folder / "spot" / "colour.png", np.stack([tile] * 3, axis=2))
    line = refused(capsys, tmp_path, good_tiles, "--few-shot", folder)
    assert "colour.png is RGB; expected grey like the good images" in line


@pytest.mark.parametrize("sigma", [12.5, 1e9, "inf", "nan", -1])
def test_a_sigma_that_cannot_be_is_refused(sigma, good_tiles, tmp_path, capsys):
    line = refused(capsys, tmp_path, good_tiles, f"--sigma={sigma}")
    assert "for images of 48 px; expected 0 (each pixel by itself) to 12, where the Gaussian is as wide" in line


def test_a_sigma_that_the_error_is_not_computed_with_is_refused(good_tiles, tmp_path, capsys):
    words = ("--image-size=4096", "--sigma=1001")
    assert "expected 0 (each pixel by itself) to 1000, the widest" in refused(capsys, tmp_path, good_tiles, *words)


@pytest.mark.parametrize("size", [15, 4097, -1])
def test_a_size_that_cannot_be_is_refused(size, good_tiles, tmp_path, capsys):
    assert f"--image-size is {size} px; expected 16 to 4096" in refused(
        capsys, tmp_path, good_tiles, f"--image-size={size}"
    )


def test_what_exists_is_left_alone(good_tiles, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    assert "exists; choose another name" in refused(capsys, tmp_path, good_tiles, out="mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_images_that_are_all_the_same_are_refused(good_tiles, tmp_path, capsys):
    folder = tmp_path / "same"
    folder.mkdir()
    for index in range(30):
        shutil.copy(list_images(good_tiles)[0], folder / f"{index}.jpg")
    assert "are the same; expected images that differ" in refused(capsys, tmp_path, folder)


def test_labels_with_nothing_to_choose_are_refused(good_tiles, labelled_tiles, tmp_path, capsys):
    words = ("--few-shot", labelled_tiles, "--components", 4, "--sigma", 1)
    assert "leaves nothing to choose" in refused(capsys, tmp_path, good_tiles, *words)


@pytest.mark.parametrize(
    "words",
    [
        ("--dim", 8),
        ("--backbone", "resnet18"),
        ("--epsilon", 0.01),
        ("--epsilon-absolute",),
        ("--web",),
        ("--binning", 2),
        ("--precision", "fp32"),
        ("--projection", "orthogonal"),
        ("--labelled", "x"),
        ("--epochs", 3),
        ("--maps", "error"),
    ],
    ids=lambda words: words[0],
)
def test_an_option_of_another_detector_is_refused_even_with_its_default(words, good_tiles, tmp_path, capsys):
    line = refused(capsys, tmp_path, good_tiles, *words)
    assert f"{words[0]} does not go with --detector pca-pse; expected it with " in line


@pytest.mark.parametrize("words", [("--sigma", "1"), ("--few-shot", "x"), ("--shots", "5"), ("--unscaled",)], ids=str)
def test_its_options_are_refused_for_padim(words, good_tiles, tmp_path, capsys):
    assert main(["fit", str(good_tiles), "--out", str(tmp_path / "a.flaw"), *words]) == 2
    said = capsys.readouterr().err
    assert f"flawline fit: {words[0]} does not go with --detector padim; expected it with pca-pse" in said
    assert list(tmp_path.iterdir()) == []


def test_help_has_an_example_of_each_detector(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    text = capsys.readouterr().out
    for words in (
        "flawline fit good/ --out part.flaw\n",
        "--detector pca-pse --few-shot",
        "--detector autoencoder --loss",
    ):
        assert words in text
