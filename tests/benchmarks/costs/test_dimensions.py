import contextlib
import io
import json

import pytest

from flawline.__main__ import main
from flawline.benchmarks.costs.dimensions import marginal_gains, unbeaten
from flawline.runtime import memory


def test_a_point_is_beaten_by_one_that_is_nowhere_worse_and_somewhere_better():
    # (cost, worth): the second costs more and is worth less than the first, the fourth only costs more than the third.
    assert unbeaten([(1.0, 0.8), (2.0, 0.7), (3.0, 0.9), (4.0, 0.9), (5.0, 0.95)]) == [0, 2, 4]


def test_equal_points_do_not_beat_each_other():
    assert unbeaten([(1.0, 0.8), (1.0, 0.8), (1.0, 0.7)]) == [0, 1]


def test_a_gain_is_told_against_the_next_cheaper_point_that_is_unbeaten():
    # In any order; (2.0, 0.7) is beaten and no step on the way from 1 to 3.
    gains = marginal_gains([(5.0, 0.95), (1.0, 0.8), (2.0, 0.7), (3.0, 0.9)])
    assert gains == {3: pytest.approx(0.05), 0: pytest.approx(0.025)}
    assert marginal_gains([(1.0, 0.8), (1.0, 0.8)]) == {}


@pytest.fixture(scope="module")
def by_dimension(tiles, tiny_words, tmp_path_factory):
    """What the command wrote, drew and printed for two dimensions in two precisions."""
    folder = tmp_path_factory.mktemp("dimensions")
    words = ["bench", "latency", "--test", str(tiles), "--dims", "2,8", *tiny_words, "--threads", "1", "--runs", "20"]
    words += ["--precisions", "fp32,int8", "--backends", "onnxruntime", "--calibration-images", "20"]
    words += ["--json", str(folder / "result.json"), "--plots", str(folder / "plots")]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(words) == 0
    return json.loads((folder / "result.json").read_text()), folder / "plots", printed.getvalue()


def test_every_dimension_has_its_time_its_bytes_and_its_accuracy(by_dimension, tiles):
    result, _, _ = by_dimension
    costs = result["results"]["dimensions"]
    assert [(one["dimension"], one["precision"]) for one in costs] == [
        (2, "fp32"),
        (2, "int8"),
        (8, "fp32"),
        (8, "int8"),
    ]
    for one in costs:
        assert (one["factor_type"], one["form"]) == ("fp16", "triangle")
        assert set(one["stages"]) == {"resize", "network", "kernel", "regions"}
        assert 0.4 < one["image_auroc"] <= 1
    low, _, high, _ = costs
    assert low["factor_bytes"] < high["factor_bytes"]
    assert result["settings"]["test"] == tiles.name


def test_of_each_precision_some_dimension_is_unbeaten(by_dimension):
    result, _, _ = by_dimension
    for precision in ("fp32", "int8"):
        costs = [one for one in result["results"]["dimensions"] if one["precision"] == precision]
        best = max(costs, key=lambda one: one["image_auroc"])
        assert any(one["unbeaten"] for one in costs if one["image_auroc"] == best["image_auroc"])


def test_what_a_dimension_gains_for_its_time_can_be_read_from_the_table(by_dimension):
    result, _, printed = by_dimension
    costs = result["results"]["dimensions"]
    for precision in ("fp32", "int8"):
        low, high = (one for one in costs if one["precision"] == precision)
        gain = high["image_auroc"] - low["image_auroc"]
        more = (high["end_to_end"]["p50_ns"] - low["end_to_end"]["p50_ns"]) / 1e6
        told = [one["gain_per_ms"] for one in (low, high) if one["gain_per_ms"] is not None]
        assert told == ([pytest.approx(gain / more)] if low["unbeaten"] and high["unbeaten"] else [])
    rows = [line.split() for line in printed.splitlines() if line.startswith("d = ")]
    for row, one in zip(rows, sorted(costs, key=lambda one: (one["precision"], one["dimension"])), strict=True):
        assert row[2] == str(one["dimension"])
        told = [f"{one['image_auroc']:.4f}"] + ["*"] * one["unbeaten"]
        told += [] if one["gain_per_ms"] is None else [f"{one['gain_per_ms']:+.4f}"]
        assert row[-len(told) :] == told


def test_plots_are_drawn(by_dimension):
    pytest.importorskip("matplotlib")
    _, plots, _ = by_dimension
    assert sorted(path.name for path in plots.iterdir()) == [
        "accuracy-against-time-threads-1.png",
        "stages-fp32-onnxruntime-threads-1.png",
        "stages-int8-onnxruntime-threads-1.png",
    ]


def test_a_dimension_that_memory_does_not_suffice_for_is_refused_before_any_other_is_fitted(
    tiles, tiny_words, monkeypatch, capsys
):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    words = ["bench", "latency", "--images", str(tiles / "train/good"), "--dims", "2,8", *tiny_words]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "fitting 64 Gaussians of 8 dimensions needs about" in error
    assert "lower --dim" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["latency"], "no frames; expected a folder of them"),
        (["latency", "{bundle}"], "with BUNDLE bench latency needs --images"),
        (["latency", "{bundle}", "--images", "{good}", "--test", "{tiles}"], "together with --test: nothing is fitted"),
        (
            [
                "latency",
                "{bundle}",
                "--images",
                "{good}",
                "--dims",
                "4",
                "--backbone",
                "resnet18",
                "--factors",
                "fp16",
                "--fit-images",
                "9",
            ],
            "together with --dims, --fit-images, --backbone, --factors: nothing is fitted",
        ),
        (["latency", "{bundle}", "--images", "{good}", "--form", "triangle"], "together with --form: nothing"),
        (["latency", "{bundle}", "--images", "{good}", "--weights", "random"], "together with --weights: nothing"),
        (["latency", "{bundle}", "--images", "{good}", "--plots", "p"], "expected several --dims"),
        (["latency", "{bundle}", "--images", "{good}", "--precisions", "int8"], "holds no network in int8"),
        (
            ["latency", "--images", "{good}", "--precisions", "bf16", "--backends", "onnxruntime"],
            "onnxruntime does not compute in bf16; expected openvino",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, tile_bundle, tiles, capsys):
    names = {"bundle": tile_bundle, "good": tiles / "test/good", "tiles": tiles}
    assert main(["bench", *(word.format(**names) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_a_misspelt_precision_is_told_which_exist(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "latency", "--images", "good", "--precisions", "fp23"])
    assert "'fp23'; expected fp32, fp16, bf16" in capsys.readouterr().err
