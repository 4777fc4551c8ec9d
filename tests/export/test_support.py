"""Networks that cannot be had in a precision: refused before anything is fitted, by the layer that is in the way."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from flawline.__main__ import main
from flawline.export import support
from flawline.runtime.backends import installed
from flawline.runtime.errors import EngineError

make = helper.make_node
# What lies between the first convolution and the feature tensor `fine`.
BETWEEN: dict[str, list[NodeProto]] = {
    "celu": [make("Celu", ["conv_1"], ["fine"], name="bend")],
    "unpool": [
        make("MaxPool", ["conv_1"], ["largest", "places"], kernel_shape=(2, 2), strides=(2, 2)),
        make("MaxUnpool", ["largest", "places"], ["fine"], kernel_shape=(2, 2), strides=(2, 2), name="unpool"),
    ],
    "dynamic": [
        make("DynamicQuantizeLinear", ["conv_1"], ["levels", "scale_of", "zero_of"]),
        make("DequantizeLinear", ["levels", "scale_of", "zero_of"], ["fine"]),
    ],
    "quantised": [
        make("QuantizeLinear", ["conv_1", "scale", "zero"], ["levels"], name="round"),
        make("DequantizeLinear", ["levels", "scale", "zero"], ["fine"]),
    ],
}
CASES = [
    ("celu", "fp16", "layer network/bend (Celu) has no float16 form; choose another precision"),
    ("quantised", "fp16", "layer network/round (QuantizeLinear): fp16 wants a network that is not quantised yet"),
    ("dynamic", "int8", "layer network/levels (DynamicQuantizeLinear): int8 wants a network that is not quantised yet"),
    ("quantised", "int8", "layer network/round (QuantizeLinear): int8 wants a network that is not quantised yet"),
    ("unpool", "int8-openvino", "in int8-openvino, layer network/unpool (MaxUnpool): OpenVINO refuses the feature graph: "),
    ("quantised", "int8-openvino", "layer network/round (QuantizeLinear): int8-openvino wants a network that is not "),
    ("quantised", "int8-tensorrt", "layer network/round (QuantizeLinear): int8-tensorrt wants a network that is not "),
]  # fmt: skip


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Two random convolutions with something between them, at an opset."""

    @cache
    def build(between: str, opset: int = 17) -> Path:
        generator = np.random.default_rng(0)
        shapes = {"weight_1": (8, 3, 4, 4), "weight_2": (12, 8, 2, 2)}
        constants = {name: generator.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
        constants |= {"scale": np.array(0.5, np.float32), "zero": np.array(128, np.uint8)}
        nodes = [
            make("Conv", ["image", "weight_1"], ["conv_1"], strides=[4, 4]),
            *BETWEEN[between],
            make("Conv", ["fine", "weight_2"], ["coarse"], strides=[2, 2]),
        ]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])
        last = helper.make_tensor_value_info("coarse", TensorProto.FLOAT, ["N", 12, "h", "w"])
        tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, between, [image], [last], tensors)
        path = tmp_path_factory.mktemp("network") / f"{between}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
        return path

    return build


def fit(network: Path, images: Path, out: Path, precision: str) -> int:
    words = f"--layers fine,coarse --image-size 64 --dim 10 --smoothing 4 --threads 1 --precision {precision}"
    return main(["fit", str(images), "--backbone", str(network), "--out", str(out), *words.split()])


@pytest.fixture(scope="module")
def bundle(
    network: Callable[..., Path], good_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Such a network in fp32, fitted."""

    @cache
    def fitted(between: str, opset: int = 17) -> Path:
        out = tmp_path_factory.mktemp("bundle") / f"{between}.flaw"
        assert fit(network(between, opset), good_images, out, "fp32") == 0
        return out

    return fitted


def require_engine(precision: str) -> None:
    if precision == "int8-openvino" and "openvino" not in installed():
        pytest.skip("openvino is not installed")


@pytest.mark.parametrize(("between", "precision", "message"), CASES)
def test_export_names_the_layer_before_it_reads_an_image(
    between: str,
    precision: str,
    message: str,
    bundle: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require_engine(precision)
    path = bundle(between)
    capsys.readouterr()
    unreadable = tmp_path / "unreadable.png"
    unreadable.write_text("no image")
    words = ("--precision", precision, "--images", str(tmp_path), "--out", str(tmp_path / "out.flaw"))
    assert main(["export", str(path), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flawline export: {message}")
    assert list(tmp_path.iterdir()) == [unreadable]


@pytest.mark.parametrize(("between", "precision", "message"), CASES)
def test_fit_names_the_layer_before_it_fits_the_float_detector(
    between: str,
    precision: str,
    message: str,
    network: Callable[..., Path],
    good_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require_engine(precision)
    assert fit(network(between), good_images, tmp_path / "out.flaw", precision) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"flawline fit: {message}")
    assert not any("scores equal" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_quantised_network_is_refused_in_fp16_where_its_operators_have_that_form(
    bundle: Callable[..., Path], good_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--precision", "fp16", "--images", str(good_images), "--out", str(tmp_path / "out.flaw"))
    assert main(["export", str(bundle("quantised", 19)), *words]) == 2
    assert "fp16 wants a network that is not quantised yet" in capsys.readouterr().err.splitlines()[-1]


def test_an_engine_that_refuses_everything_blames_no_layer(
    tiny_bundle: Path,
    good_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise EngineError("this processor cannot compute in bf16")

    monkeypatch.setattr(support, "extractor_of", refuse)
    words = ("--precision", "bf16", "--images", str(good_images), "--out", str(tmp_path / "out.flaw"))
    assert main(["export", str(tiny_bundle), *words]) == 2
    assert capsys.readouterr().err == "flawline export: in bf16, this processor cannot compute in bf16\n"
