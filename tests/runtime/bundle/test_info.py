import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flawline.__main__ import main
from flawline.runtime import bundle


def info(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["info", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_json_is_the_manifest_with_hash_and_size(written: bundle.Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(info(capsys, str(written.path), "--json"))
    engines = facts.pop("engines")
    assert [candidate["name"] for candidate in engines["fp32"]] == ["onnxruntime", "openvino", "tensorrt"]
    assert {candidate["verdict"] for candidate in engines["fp32"]} <= {"refused", "not installed"}
    assert facts == {
        "hash": written.hash,
        "total_bytes": written.total_bytes,
        "manifest": json.loads((written.path / "manifest.json").read_bytes()),
    }


def test_text_says_what_was_fitted(parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = parts(tie="column", channels=3, components=2).write(tmp_path / "bundle")
    text = info(capsys, str(written.path))
    for fact in (
        written.hash,
        "one Gaussian per column of the web",
        "16 x 24 px RGB (height x width), area; good images of 40 x 60 px",
        "features_0 2 x 3, features_1 1 x 1; stride 16 px",
        "gaussian, 12 to 5 channels, seed 7 (philox4x64)",
        "3 of 2 components, epsilon 0.01 of the mean feature variance, no shrinkage",
        "false reject rate 0.2, from 7 held-out good images",
        "20 images and 7 for the threshold, seed 3",
        "Parity                 max relative error 1.0e-04\n    against            float64\n",
        "2 frames, whose scores must be met within 0.001",
        "RANDOM: drawn, not trained",
    ):
        assert fact in text
    for name, entry in written.manifest.files.items():
        assert name in text
        assert entry.sha256[:16] in text


def test_figures_of_reports_are_those_that_a_person_reads(
    parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parity = {
        "reference": "float64",
        "images": 1234.0,
        "factor_error_max": 0.00024912345,
        "factor_error_max_tolerance": 0.01,
        "score_error_p99": 0.0491987654,
        "rank_correlation": 0.99612345,
        "image_auroc": 0.98765432,
        "flipped_verdicts": 2.0,
        "forged": 1e300,
    }
    given = parts(tie="global")
    given = replace(given, manifest=msgspec.structs.replace(given.manifest, parity=parity))
    text = info(capsys, str(given.write(tmp_path / "bundle").path))
    (line,) = (line for line in text.splitlines() if line.startswith("Parity "))
    assert sorted(line.removeprefix("Parity").strip().split(", ")) == [
        "factor error max 2.5e-04",
        "flipped verdicts 2",
        "forged 1e+300",
        "image auroc 0.9877",
        "images 1234",
        "rank correlation 0.996",
        "score error p99 4.9%",
    ]


def test_text_names_trained_weights_and_what_was_not_done(
    parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = parts(tie="global").with_manifest(
        input={"source_height": None, "source_width": None},
        network={"weights": bundle.Weights(origin="resnet18.pth", sha256="ab" * 32, random=False)},
        map={"sigma": 0.0},
        gaussian={"shrinkage": "ledoit-wolf", "epsilon_relative": False},
        fit={"group_by": "cell-*"},
        parity=None,
    )
    text = info(capsys, str(given.write(tmp_path / "bundle").path))
    for fact in (
        "resnet18.pth, sha256 abababababababab...",
        "good images of several sizes",
        "not smoothed",
        "epsilon 0.01, absolute, shrinkage ledoit-wolf",
        "grouped by cell-*",
        "Parity                 not measured",
    ):
        assert fact in text
    assert "RANDOM" not in text


def test_control_characters_of_a_forged_bundle_do_not_reach_the_terminal(
    written: bundle.Bundle, forge: Callable[[Path, bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fields = json.loads((written.path / "manifest.json").read_bytes())
    fields["network"]["name"] = "\x1b[2Jnet\nHash forged\u202e"
    forge(written.path, json.dumps(fields).encode())
    text = info(capsys, str(written.path))
    assert text.replace("\n", "").isprintable()
    assert r"\x1b[2Jnet\nHash forged\u202e" in text


def test_damaged_bundle_is_one_line_and_exit_2(written: bundle.Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    (written.path / "features.onnx").write_bytes(b"damaged")
    assert main(["info", str(written.path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "features.onnx holds 7 bytes; the manifest says 512" in captured.err


def test_every_precision_is_told_with_the_engine_that_auto_means(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = info(capsys, str(tiny_bundle))
    assert re.search(r"^In fp32 +onnxruntime [0-9.]+: (chosen; [0-9.]+ ms per frame|not faster)", text, re.MULTILINE)
    engines = json.loads(info(capsys, str(tiny_bundle), "--json"))["engines"]["fp32"]
    assert [candidate["verdict"] for candidate in engines].count("chosen") == 1
    errors = [candidate["worst_relative_error"] for candidate in engines]
    assert errors[0] is not None
    assert all(error <= 5e-3 for error in errors if error is not None)
