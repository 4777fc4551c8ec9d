import importlib
import json
import weakref

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.calibration.statistics import StatisticsOptions
from flawline.export import parity
from flawline.export.fit import FitOptions, fit_bundle
from flawline.runtime import Detector, InputError, ResourceError
from flawline.runtime import bundle as bundles
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.kernels import pack, unpack


def options(tiny_network, **changes):
    return FitOptions(
        **{
            "backbone": str(tiny_network),
            "layers": ("fine", "coarse"),
            "image_size": 64,
            "dimension": 10,
            "threads": 1,
            **changes,
        }
    )


def test_two_fits_with_one_seed_are_equal_byte_for_byte(good_images, tiny_network, tmp_path):
    images = list_images(good_images)
    first, second = (fit_bundle(images, tmp_path / name, options(tiny_network)) for name in ("a.flaw", "b.flaw"))
    assert first.hash == second.hash
    other = fit_bundle(images, tmp_path / "c.flaw", options(tiny_network, seed=1))
    assert other.hash != first.hash


@pytest.mark.parametrize("projection", ["gaussian", "orthogonal", "sparse", "select", "none"])
def test_every_projection_makes_a_bundle_that_scores_like_its_reference(
    projection, good_images, tiny_network, tmp_path
):
    dimension = None if projection == "none" else 10
    bundle = fit_bundle(
        list_images(good_images),
        tmp_path / "made.flaw",
        options(tiny_network, projection=projection, dimension=dimension),
    )
    assert bundle.manifest.projection.dimension == (20 if projection == "none" else 10)
    assert bundle.manifest.parity["relative_error_max"] <= 2e-3


@pytest.mark.parametrize(
    "statistics",
    [
        {"tie": "column"},
        {"tie": "global"},
        {"tie": "global", "components": 4},
        {"tie": "column", "components": 2},
        {"factors": "fp32"},
        {"shrinkage": "oas"},
        {"shrinkage": 0.1},
        {"epsilon": 0.01, "epsilon_relative": False},
    ],
    ids=str,
)
def test_every_model_of_normal_makes_a_bundle_that_scores_like_its_reference(
    statistics, good_images, tiny_network, tmp_path
):
    made = options(tiny_network, statistics=StatisticsOptions(**statistics))
    bundle = fit_bundle(list_images(good_images), tmp_path / "made.flaw", made)
    assert bundle.manifest.parity["relative_error_max"] <= parity.TOLERANCES[made.statistics.factors]
    with Detector.open(bundle.path) as detector:
        assert np.isfinite(detector(read_image(list_images(good_images)[0])).score)


def test_a_named_network_scores_like_torch_in_float64(good_images, tmp_path):
    bundle = fit_bundle(
        list_images(good_images),
        tmp_path / "made.flaw",
        FitOptions(image_size=64, dimension=32, threads=1, statistics=StatisticsOptions(factors="fp32")),
    )
    report = bundle.manifest.parity
    assert report["reference"].startswith("torch features in float64")
    assert report["relative_error_max"] <= 1e-4
    assert not bundle.manifest.network.weights.random


@pytest.mark.parametrize("colour", [False, True])
def test_the_layout_of_the_input_changes_no_score(colour, good_images, tiny_network, tmp_path):
    images = list_images(good_images)
    if colour:
        for path in images:
            frame = read_image(path)
            write_image(tmp_path / path.name, np.stack([frame, np.roll(frame, 3, 0), 255 - frame], axis=2))
        images = list_images(tmp_path)
    scores = []
    for layout in ("nhwc", "nchw"):
        bundle = fit_bundle(images, tmp_path / f"{layout}.flaw", options(tiny_network, layout=layout))
        assert bundle.manifest.input.layout == layout
        with Detector.open(bundle.path, backend="onnxruntime") as detector:
            scores.append([detector(read_image(path)).score for path in images[:5]])
    np.testing.assert_array_equal(scores[0], scores[1])


def test_random_weights_are_said_for_ever(good_images, tmp_path):
    bundle = fit_bundle(
        list_images(good_images),
        tmp_path / "made.flaw",
        FitOptions(weights="random", image_size=64, dimension=8, threads=1),
    )
    assert bundle.manifest.network.weights.random


def test_an_artefact_that_scores_differently_is_caught_and_nothing_is_written(
    good_images, tiny_network, tmp_path, monkeypatch, capsys
):
    # The planted fault: statistics shipped with means that are off by a tenth of a standard deviation.
    from flawline.export import fitting

    collect = fitting.collect

    def off(*arguments):
        statistics = collect(*arguments)
        statistics.gaussians.means[...] *= 1.01
        return statistics

    monkeypatch.setattr(fitting, "collect", off)
    out = tmp_path / "made.flaw"
    words = f"fit {good_images} --out {out} --backbone {tiny_network} --layers fine,coarse --image-size 64 --dim 10"
    assert main(words.split()) == 1
    assert "does not score like" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_packed_row_that_is_off_is_caught_and_nothing_is_written(
    good_images, tiny_network, tmp_path, monkeypatch, capsys
):
    # The planted fault: 5 % in one row of one position's factor, which moves no score.
    from flawline.export import fitting

    collect = fitting.collect

    def off(*arguments):
        statistics = collect(*arguments)
        factors = statistics.gaussians.factors
        rows = unpack(factors[100, 0], 10)
        rows[4] *= 1.05
        factors[100, 0] = pack(rows)
        return statistics

    monkeypatch.setattr(fitting, "collect", off)
    out = tmp_path / "made.flaw"
    words = f"fit {good_images} --out {out} --backbone {tiny_network} --layers fine,coarse --image-size 64 --dim 10"
    assert main(words.split()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("scores equal ") for line in lines)
    assert lines[-1].startswith("flawline fit: the packed fp16 factors (triangle) do not give the distances of their")
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_the_factors_is_said_kept_and_shown(good_images, tiny_network, tmp_path, capsys):
    lines = []
    bundle = fit_bundle(list_images(good_images), tmp_path / "made.flaw", options(tiny_network), lines.append)
    report = bundles.read(bundle.path).manifest.parity
    assert 0 < report["factor_error_p99"] <= report["factor_error_max"]
    assert (
        f"within {report['factor_error_p99']:.1e} (99 % of them) to {report['factor_error_max']:.1e} (all)" in lines[-1]
    )
    assert main(["info", str(bundle.path)]) == 0
    assert f"factor error max {report['factor_error_max']:.1e}, factor error p99 " in capsys.readouterr().out


def test_a_border_that_never_varies_is_within_the_error_of_the_maps(good_images, tiny_network, tmp_path):
    for path in list_images(good_images):
        frame = np.zeros_like(read_image(path))
        frame[24:-24, 32:-32] = read_image(path)[24:-24, 32:-32]
        write_image(tmp_path / path.name, frame)
    made = options(tiny_network, smoothing_px=0.0)
    bundle = fit_bundle(list_images(tmp_path), tmp_path / "made.flaw", made)
    assert (bundle.golden[0].map[0] == 0).all()
    assert 0 < bundles.read(bundle.path).manifest.parity["map_relative_error_max"] <= 2e-3


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_a_kernel_that_sums_the_scales_wrongly_is_caught(upsampling, good_images, tiny_network, tmp_path, monkeypatch):
    # The planted fault: coarse maps are read a pixel off, in calibration and in scoring alike.
    implementations = importlib.import_module("flawline.runtime.kernels.implementations")
    taps = implementations.resampling_taps

    def shifted(source, target, kind):
        low, high, weight = taps(source, target, kind)
        return (np.minimum(low + 1, source - 1), high, weight) if source < target else (low, high, weight)

    monkeypatch.setattr(implementations, "resampling_taps", shifted)
    with pytest.raises(parity.ParityError):
        fit_bundle(list_images(good_images), tmp_path / "made.flaw", options(tiny_network, upsampling=upsampling))


def test_too_little_memory_is_an_error_at_the_start(good_images, tiny_network, tmp_path, monkeypatch):
    from flawline.runtime import memory

    monkeypatch.setattr(memory, "available_bytes", lambda: 100 << 20)
    with pytest.raises(ResourceError, match=r"0\.1 GB are available; lower --dim"):
        fit_bundle(list_images(good_images), tmp_path / "made.flaw", options(tiny_network))


def test_float_factors_are_not_held_while_another_precision_is_fitted(good_images, tiny_network, tmp_path, monkeypatch):
    from flawline.export import fit

    float_factors, fit_detector, fit_variant = [], fit.fit_detector, fit.fit_variant

    def remember(*arguments, **named):
        fitted = fit_detector(*arguments, **named)
        float_factors.append(weakref.ref(fitted.payload.statistics["factors"]))
        return fitted

    def check(*arguments, **named):
        assert len(float_factors) == 1
        assert float_factors[0]() is None
        return fit_variant(*arguments, **named)

    monkeypatch.setattr(fit, "fit_detector", remember)
    monkeypatch.setattr(fit, "fit_variant", check)
    made = options(tiny_network, precision="int8")
    assert fit_bundle(list_images(good_images), tmp_path / "made.flaw", made).precisions == ("int8",)


def test_a_precision_is_compared_by_auroc_where_labels_exist(good_images, tiny_network, tiny_dataset, tmp_path, capsys):
    words = (
        f"fit {good_images} --out {tmp_path}/made.flaw --backbone {tiny_network} --layers fine,coarse --image-size 64 "
        f"--dim 10 --precision int8 --labelled {tiny_dataset} --json"
    )
    assert main(words.split()) == 0
    report = json.loads(capsys.readouterr().out)["manifest"]["fidelity"]
    assert report["image_auroc_drop"] == report["float_image_auroc"] - report["image_auroc"]
    assert report["float_image_auroc"] > 0.9


def test_labelled_images_have_nothing_to_compare_in_fp32(good_images, tiny_network, tiny_dataset, tmp_path, capsys):
    words = f"fit {good_images} --out {tmp_path}/made.flaw --backbone {tiny_network} --labelled {tiny_dataset}"
    assert main(words.split()) == 2
    assert "--labelled goes with a --precision other than fp32" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_split_the_rate_and_the_groups_are_recorded(good_images, tiny_network, tmp_path):
    made = options(tiny_network, false_reject_rate=0.1, calibration_images=12, fit_images=20, group_by=r"good_\d(\d)")
    facts = fit_bundle(list_images(good_images), tmp_path / "made.flaw", made).manifest
    assert (facts.fit.images, facts.fit.calibration_images) == (20, 12)
    assert facts.fit.group_by == r"good_\d(\d)"
    assert facts.threshold.false_reject_rate == 0.1


def test_fit_prints_one_json_object(good_images, tiny_network, tmp_path, capsys):
    words = f"fit {good_images} --out {tmp_path}/a.flaw --backbone {tiny_network} --layers fine,coarse --image-size 64 --json"
    assert main(words.split()) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["manifest"]["projection"]["dimension"] == 20


def test_an_existing_path_is_refused_before_any_work(good_images, tiny_network, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        fit_bundle(list_images(good_images), tmp_path / "kept", options(tiny_network))
    assert (tmp_path / "kept").read_text() == "mine"
