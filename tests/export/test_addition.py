"""A further precision of a bundle: from the images that it was fitted on, in the form that is asked for."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.calibration.split import split
from flawline.export.fit import FitOptions, fit_bundle
from flawline.runtime import bundle as bundles
from flawline.runtime.images import list_images, read_image, write_image


def export(bundle: Path, images: Path, out: Path, *words: str, precision: str = "int8") -> int:
    command = ["export", str(bundle), "--precision", precision, "--images", str(images), "--out", str(out), *words]
    return main([*command, "--threads", "1"])


@pytest.fixture
def copied(good_images: Path, tmp_path: Path) -> Path:
    """The good images in a folder of their own."""
    return Path(shutil.copytree(good_images, tmp_path / "images"))


def of_split(images: Path, bundle: Path) -> tuple[list[Path], list[Path]]:
    """Images that were fitted and those held out."""
    manifest = bundles.read(bundle).manifest
    return split(
        list_images(images),
        false_reject_rate=manifest.threshold.false_reject_rate,
        calibration_images=manifest.fit.calibration_images,
        group_by=None,
        seed=manifest.fit.seed,
    )


def test_images_that_are_left_out_are_named(
    tiny_bundle: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "bad_1.png").write_bytes(b"")
    (copied / "bad_2.png").write_text("no image")
    assert export(tiny_bundle, copied, tmp_path / "out.flaw") == 2
    assert "bad_1.png" in capsys.readouterr().err
    assert export(tiny_bundle, copied, tmp_path / "out.flaw", "--skip-bad", precision="fp16") == 0
    left_out = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert [name in line for name, line in zip(("bad_1.png", "bad_2.png"), left_out, strict=True)] == [True, True]


def test_held_out_images_that_are_not_those_of_the_bundle_are_refused(
    tiny_bundle: Path, tiny_dataset: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, held_out = of_split(copied, tiny_bundle)
    # As good as the one in whose place it is.
    shutil.copy(tiny_dataset / "test" / "good" / "0.png", held_out[3])
    assert export(tiny_bundle, copied, tmp_path / "out.flaw") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"flawline export: the {len(held_out)} held-out images do not score as those that {tiny_bundle}"
    )
    assert not (tmp_path / "out.flaw").exists()


@pytest.mark.parametrize("left", [3, 12])
def test_a_folder_of_too_few_images_is_not_told_of_an_option_of_another_command(
    left: int, tiny_bundle: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in list_images(copied)[left:]:
        path.unlink()
    assert export(tiny_bundle, copied, tmp_path / "out.flaw") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"flawline export: these {left} images are not those that {tiny_bundle} was fitted on (21, and 19 "
    )
    assert "--false-reject-rate" not in line


def test_a_held_out_image_that_is_one_grey_level_brighter_is_refused(
    tiny_bundle: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, held_out = of_split(copied, tiny_bundle)
    frame = read_image(held_out[0])
    write_image(held_out[0], np.where(frame < 255, frame + 1, frame))
    assert export(tiny_bundle, copied, tmp_path / "out.flaw") == 2
    assert "largest relative difference" in capsys.readouterr().err


def test_a_fitted_image_that_changed_is_refused_by_its_bytes(
    tiny_bundle: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted, _ = of_split(copied, tiny_bundle)
    frame = read_image(fitted[0])
    frame[0, 0] ^= 1
    write_image(fitted[0], frame)
    assert export(tiny_bundle, copied, tmp_path / "out.flaw") == 2
    assert "are not those that" in capsys.readouterr().err


def test_the_form_of_the_factors_can_be_chosen(good_images: Path, tiny_network: Path, tmp_path: Path) -> None:
    few = FitOptions(
        backbone=str(tiny_network),
        layers=("fine", "coarse"),
        image_size=64,
        dimension=20,
        fit_images=6,
        smoothing_px=4.0,
        threads=1,
    )
    own = fit_bundle(list_images(good_images), tmp_path / "few.flaw", few)
    assert (own.manifest.gaussian.form, own.manifest.gaussian.rank) == ("woodbury", 5)
    forms = {}
    for words in ((), ("--form", "triangle"), ("--factors", "fp32"), ("--factors", "fp32", "--form", "triangle")):
        out = tmp_path / "-".join(("out", *words))
        assert export(own.path, good_images, out, *words, precision="fp16") == 0
        added = bundles.read(out).select("fp16").manifest.gaussian
        forms[words] = (added.factors, added.form, added.rank)
    assert list(forms.values()) == [
        ("fp16", "woodbury", 5),
        ("fp16", "triangle", None),
        ("fp32", "woodbury", 5),
        ("fp32", "triangle", None),
    ]


def test_a_form_that_the_factors_do_not_have_is_refused_before_any_work(
    tiny_bundle: Path, good_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--factors", "int8", "--form", "woodbury")
    assert export(tiny_bundle, good_images, tmp_path / "out.flaw", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "int8 factors are too coarse for the Woodbury form" in line
    assert list(tmp_path.iterdir()) == []
