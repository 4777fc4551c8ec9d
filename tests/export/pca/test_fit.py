"""Good images to a bundle of principal components, and what it scores."""

import numpy as np
import pytest

from flawline.calibration.component_choice import Grid
from flawline.export import fit_pca
from flawline.export.fit_pca import fit_pca_bundle
from flawline.export.parity import ParityError
from flawline.export.reconstruction_options import PcaOptions
from flawline.export.reconstruction_parity import TOLERANCES
from flawline.runtime import Detector
from flawline.runtime import bundle as bundles
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image, write_image

SIDE = 48


def options(**changes):
    return PcaOptions(**{"image_size": SIDE, "threads": 1, **changes})


@pytest.fixture(scope="module")
def fitted(good_tiles, labelled_tiles, tmp_path_factory):
    """A bundle of real tiles, chosen by five labelled ones of each kind, and what was said."""
    lines = []
    out = tmp_path_factory.mktemp("bundle") / "tiles.flaw"
    return fit_pca_bundle(list_images(good_tiles), out, options(few_shot=labelled_tiles), lines.append), lines


def test_the_manifest_says_what_was_made(fitted):
    facts = fitted[0].manifest
    assert facts.detector == "reconstruction"
    assert (facts.input.height, facts.input.width, facts.input.channels) == (SIDE, SIDE, 1)
    assert (facts.map.height, facts.map.width, facts.map.upsampling) == (SIDE, SIDE, "nearest")
    assert (facts.reconstruction.kind, facts.reconstruction.architecture, facts.network.name) == ("pca", "pca", "pca")
    assert (facts.reconstruction.map, set(facts.reconstruction.maps)) == ("pse", {"pse", "error"})
    assert (facts.reconstruction.loss, facts.reconstruction.epochs, facts.reconstruction.best_epoch) == (None,) * 3
    assert facts.reconstruction.chosen.startswith("by 15 labelled images, average precision 0.")
    assert facts.fit.images + facts.fit.calibration_images == 60
    assert facts.network.weights.origin == "fitted on the good images"
    assert facts.threshold.score == facts.reconstruction.maps["pse"].score
    assert 0 < facts.parity["relative_error_max"] <= 1e-3
    assert 0 < facts.parity["map_relative_error_max"] <= 1e-3


def test_what_is_done_is_said(fitted, labelled_tiles):
    text = "\n".join(fitted[1])
    assert "41 good images to fit, 19 held out" in text
    assert "principal components of grey images of 48 x 48 px" in text
    assert "by 15 labelled images, average precision" in text
    assert "pse: scores equal" in text
    assert "error: scores equal" in text


@pytest.mark.parametrize("kind", ["pse", "error"])
def test_thresholds_and_p_values_are_those_of_the_map(fitted, kind, good_tiles):
    bundle = fitted[0].with_map(kind)
    scores = np.array(bundle.statistics[f"calibration_scores.{kind}"])
    assert (len(scores), scores.dtype) == (19, np.float32)
    assert bundle.manifest.threshold.score == scores.max()
    assert bundle.p_value(float(scores[-1])) == pytest.approx(2 / 20)
    with Detector.open(fitted[0].path, backend="onnxruntime", map=kind) as detector:
        held_out = [detector(read_image(path)).score for path in list_images(good_tiles)]
    # Those of the held-out images are among those of all.
    assert np.isin(scores, np.array(held_out, np.float32)).all()


def test_golden_frames_are_those_of_the_default_map(fitted):
    bundle = bundles.read(fitted[0].path)
    with Detector.open(bundle.path) as detector:
        for golden in bundle.golden:
            result = detector(np.array(golden.frame))
            assert result.score == pytest.approx(golden.score, rel=1e-5)
            np.testing.assert_allclose(result.map, golden.map, atol=1e-5 * golden.score)


def test_flawed_tiles_score_higher(fitted, labelled_tiles, shared_data):
    root = shared_data / "magnetic_tile" / "test"
    with Detector.open(fitted[0].path) as detector:
        good, bad = (
            [detector(read_image(path)).score for path in list_images(root / kind)[8:28]] for kind in ("good", "crack")
        )
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score([False] * len(good) + [True] * len(bad), good + bad) > 0.6


def test_two_fits_with_one_seed_are_equal_byte_for_byte(good_tiles, tmp_path):
    images = list_images(good_tiles)
    first, second = (fit_pca_bundle(images, tmp_path / name, options()) for name in ("a.flaw", "b.flaw"))
    assert first.hash == second.hash
    assert fit_pca_bundle(images, tmp_path / "c.flaw", options(seed=1)).hash != first.hash


def test_without_labels_good_images_choose_that_are_not_fitted(good_tiles, tmp_path):
    facts = fit_pca_bundle(list_images(good_tiles), tmp_path / "a.flaw", options()).manifest
    assert facts.reconstruction.chosen == "by 8 good images that were not fitted"
    assert (facts.fit.images, facts.fit.calibration_images) == (33, 19)
    assert facts.reconstruction.components in (1, 2, 4, 8, 16, 32)


def test_images_that_choose_are_told_from_those_that_are_fitted(good_tiles, tmp_path):
    said = []
    facts = fit_pca_bundle(list_images(good_tiles), tmp_path / "a.flaw", options(sigma=1.0), said.append).manifest
    assert said[0].startswith("41 good images to fit, 19 held out")
    assert said[1] == "33 of those to fit are fitted, 8 are kept out of the components to choose by"
    assert facts.fit.images == 33


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (60, "32 is the largest number of components that 33 images allow: more good images may do better"),
        (
            120,
            "64 is the largest number of components that is tried, and more may do better: give --components, up to 76, and "
            "compare by `flawline evaluate`",
        ),
    ],
)
def test_a_choice_that_ends_at_the_last_number_tried_says_so(images, line, shared_data, tmp_path):
    tiles = list_images(shared_data / "magnetic_tile" / "train" / "good")[:images]
    said = []
    facts = fit_pca_bundle(tiles, tmp_path / "a.flaw", options(), said.append).manifest
    assert line.startswith(f"{facts.reconstruction.components} is the largest")
    assert line in said
    assert not any("sigma" in other for other in said[said.index(line) + 1 :])


def test_a_choice_that_ends_at_the_widest_sigma_says_so(good_tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_pca, "Grid", lambda *of: Grid(*of) if of else Grid((4, 8), (0.0, 0.5)))
    said = []
    facts = fit_pca_bundle(list_images(good_tiles), tmp_path / "a.flaw", options(components=8), said.append).manifest
    assert facts.map.sigma == 0.5
    assert (
        "sigma 0.5 px is the widest that is tried, and a wider one may do better: give --sigma, up to 12, and compare by "
        "`flawline evaluate`"
    ) in said


def test_what_is_given_is_not_chosen(good_tiles, tmp_path):
    made, said = options(components=40, sigma=12.0), []
    fit_pca_bundle(list_images(good_tiles), tmp_path / "b.flaw", made, said.append)
    assert not any("is tried" in line or "kept out" in line for line in said)
    made = options(components=7, sigma=1.25)
    facts = fit_pca_bundle(list_images(good_tiles), tmp_path / "a.flaw", made).manifest
    assert (facts.reconstruction.components, facts.map.sigma, facts.reconstruction.chosen) == (7, 1.25, "given")
    assert facts.fit.images == 41


@pytest.mark.parametrize("given", [{"components": 7}, {"sigma": 1.25}], ids=str)
def test_the_other_is_chosen_beside_what_is_given(given, good_tiles, labelled_tiles, tmp_path):
    made = options(few_shot=labelled_tiles, **given)
    facts = fit_pca_bundle(list_images(good_tiles), tmp_path / "a.flaw", made).manifest
    assert facts.reconstruction.chosen.startswith("by 15 labelled images")
    found = {"components": facts.reconstruction.components, "sigma": facts.map.sigma}
    assert {name: found[name] for name in given} == given


def test_colour_is_rebuilt_channel_by_channel(good_tiles, tmp_path):
    folder = tmp_path / "colour"
    folder.mkdir()
    for path in list_images(good_tiles)[:30]:
        tile = read_image(path)
        write_image(folder / f"{path.stem}.png", np.stack([tile, tile // 2, 255 - tile], axis=2))
    made = options(components=5, sigma=1.0)
    bundle = fit_pca_bundle(list_images(folder), tmp_path / "a.flaw", made)
    assert bundle.manifest.input.channels == 3
    assert bundle.manifest.parity["map_relative_error_max"] <= 1e-3
    with Detector.open(bundle.path) as detector:
        frame = read_image(list_images(folder)[0])
        spoiled = frame.copy()
        spoiled[100:160, 100:160, 1] = 255
        assert detector(spoiled).score > 3 * detector(frame).score


def test_taps_of_equation_4_are_kept(good_tiles, tmp_path):
    scaled, raw = (
        fit_pca_bundle(
            list_images(good_tiles),
            tmp_path / f"{normalised}.flaw",
            options(components=4, sigma=0.5, normalised=normalised),
        )
        for normalised in (True, False)
    )
    assert not raw.manifest.reconstruction.normalised
    # The taps at -1, 0 and 1 of equation 4 sum to 1.0139 at this sigma, and the error has their product for x and y squared.
    taps = np.exp(-2 * np.arange(-1, 2) ** 2.0).sum() / (np.sqrt(2 * np.pi) * 0.5)
    assert raw.manifest.threshold.score == pytest.approx(scaled.manifest.threshold.score * taps**4, rel=1e-4)


def test_a_file_that_differs_from_the_components_is_not_written(good_tiles, tmp_path, monkeypatch):
    # The planted fault: the mean that ships is half a grey level too bright.
    compose = fit_pca.compose_reconstruction

    def off(components, **named):
        components.mean[...] += 0.5
        features = compose(components, **named)
        components.mean[...] -= 0.5
        return features

    monkeypatch.setattr(fit_pca, "compose_reconstruction", off)
    with pytest.raises(ParityError, match="does not score like principal components"):
        fit_pca_bundle(list_images(good_tiles), tmp_path / "a.flaw", options(components=4, sigma=1.0))
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_to_choose_by_say_what_would_do(good_tiles, tmp_path):
    made = options(false_reject_rate=0.3, calibration_images=3)
    with pytest.raises(
        InputError, match=r"7 good images to fit and to choose by; expected at least 8, or a choice by labelled"
    ):
        fit_pca_bundle(list_images(good_tiles)[:10], tmp_path / "a.flaw", made)


def test_groups_stay_together_where_images_choose(good_tiles, tmp_path):
    made = options(group_by=r"exp(\d)")
    with pytest.raises(InputError, match="--group-by"):
        fit_pca_bundle(list_images(good_tiles), tmp_path / "a.flaw", made)


def test_components_that_float16_does_not_hold_are_fitted_in_float32(good_tiles, tmp_path, monkeypatch):
    # As much rounding as there can be: every row in float16, those that carry most included.
    monkeypatch.setattr(fit_pca, "ROUNDINGS", (1e9, 0.0))
    for kind in ("pse", "error"):
        monkeypatch.setitem(TOLERANCES, kind, 1e-4)
    lines = []
    given = options(components=24, sigma=0.0)
    bundle = fit_pca_bundle(list_images(good_tiles), tmp_path / "exact.flaw", given, lines.append)
    assert bundle.manifest.parity["relative_error_max"] < 1e-4
    said = [line for line in lines if line.startswith("in float16 the components miss the gate (")]
    assert len(said) == 1
    assert "tolerance 0.0001); all of them in float32 instead" in said[0]
    assert "nothing was written" not in said[0]


def test_a_graph_that_is_in_float32_already_is_not_tried_twice(good_tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_pca, "ROUNDINGS", (0.0, 0.0))
    for kind in ("pse", "error"):
        monkeypatch.setitem(TOLERANCES, kind, 1e-12)
    lines = []
    given = options(components=4, sigma=0.0)
    with pytest.raises(ParityError, match=r"tolerance 1e-12; nothing was written"):
        fit_pca_bundle(list_images(good_tiles), tmp_path / "exact.flaw", given, lines.append)
    assert not [line for line in lines if "float32" in line]
