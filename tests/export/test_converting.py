"""What ONNX, its converters and ONNX Runtime raise: one line that names the precision."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from flawline.__main__ import main
from flawline.export import half, variants
from flawline.export.calibrated import calibrate, open_session
from flawline.export.converting import converting
from flawline.export.half import to_fp16
from flawline.export.quantise import quantise, quantise_alone
from flawline.export.sealed import sealed
from flawline.runtime.errors import EngineError, InputError, ResourceError


def foreign(features: bytes) -> bytes:
    """The graph with a last layer that no engine knows."""
    model = onnx.load_from_string(features)
    model.graph.node[-1].domain = "elsewhere"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    return bytes(model.SerializeToString())


def test_a_graph_that_is_not_valid_is_refused_in_the_name_of_its_precision(tiny: Callable[[int], Any]) -> None:
    model = onnx.load_from_string(tiny(1).features)
    model.graph.node[-1].op_type = "Convolve"
    with pytest.raises(
        InputError, match=r"the ONNX checker fails on the network in int8: .*Convolve.*; choose another precision"
    ):
        sealed(model, "int8")


def test_what_the_quantiser_raises_names_the_precision(tiny: Callable[[int], Any]) -> None:
    # Ranges of no tensor, which it wants of each.
    unseen = replace(tiny(1).calibrated, histograms={})
    for attempt in (
        lambda: quantise(unseen, "int8-tensorrt"),
        lambda: quantise_alone(unseen, "int8-tensorrt", "network/conv_1"),
    ):
        with pytest.raises(InputError, match="the quantiser of ONNX Runtime fails on the network in int8-tensorrt: "):
            attempt()


def test_what_the_converter_to_float16_raises_names_the_precision(
    tiny: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise TypeError("model is\nof no kind")

    monkeypatch.setattr(half.float16, "convert_float_to_float16", fail)
    with pytest.raises(
        InputError, match="the converter of ONNX Runtime fails on the network in fp16: TypeError model is of no kind; "
    ):
        to_fp16(tiny(1).features)


def test_a_graph_that_onnxruntime_refuses_is_an_error_of_the_engine(tiny: Callable[[int], Any]) -> None:
    with pytest.raises(EngineError, match=r"ONNX Runtime refuses the feature graph: .*INVALID_PROTOBUF"):
        open_session(b"\xff" * 64, 1)
    with pytest.raises(EngineError, match=r"ONNX Runtime refuses the feature graph: .*elsewhere"):
        calibrate(foreign(tiny(1).features), tiny(1).calibration, 1)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_graph_that_an_engine_refuses_halfway_is_one_line_that_names_the_precision(
    precision: str,
    tiny_bundle: Path,
    good_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def calibrate_foreign(features: bytes, *arguments: Any, **named: Any) -> object:
        return calibrate(foreign(features), *arguments, **named)

    monkeypatch.setattr(variants, "calibrate", calibrate_foreign)
    words = ("--precision", precision, "--images", str(good_images), "--out", str(tmp_path / "out.flaw"))
    assert main(["export", str(tiny_bundle), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flawline export: {tiny_bundle}: in {precision}, ONNX Runtime refuses the feature graph: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ResourceError("no memory"), MemoryError()], ids=repr)
def test_errors_that_say_all_there_is_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, converting("int8", "a tool"):
        raise error
    assert raised.value is error
