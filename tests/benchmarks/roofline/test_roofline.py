import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.benchmarks.gpu.statistics import random_gaussians
from flawline.benchmarks.roofline.devices import DEVICES, Device
from flawline.benchmarks.roofline.network import network
from flawline.benchmarks.roofline.steps import ratios
from flawline.benchmarks.roofline.work import FACTORS, POSITIONS, Work, factor_bytes, mahalanobis, proximal_error
from flawline.export.features import export_features, open_backbone
from flawline.runtime.errors import InputError

PAGE = (Path(__file__).parents[3] / "docs/gpu.md").read_text()
SLOW = Device(
    "slow",
    "A device",
    "on",
    memory_bytes=1e9,
    bytes_per_second=1e6,
    fp32_per_second=1e6,
    fp16_per_second=4e6,
    int8_per_second=8e6,
    source="none",
)


def test_floor_is_the_longer_of_moving_and_computing():
    moving, computing = Work(3_000_000, 1_000_000, "fp32"), Work(1_000_000, 8_000_000, "fp16")
    assert (moving.floor_s(SLOW), moving.bound(SLOW)) == (3, "bytes")
    assert (computing.floor_s(SLOW), computing.bound(SLOW)) == (2, "operations")


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_tensor_cores_take_half_the_bits_at_twice_the_rate(device):
    assert device.int8_per_second == pytest.approx(2 * device.fp16_per_second, rel=2e-3)
    assert device.fp16_per_second > 4 * device.fp32_per_second


@pytest.mark.parametrize("form", ["fp16 triangle", "int8 triangle"])
@pytest.mark.parametrize("d", [9, 16])
def test_bytes_of_triangles_are_those_that_are_stored(form, d):
    gaussians = random_gaussians(POSITIONS, d, FACTORS[form])
    row_scales = 0 if gaussians.row_scales is None else gaussians.row_scales.nbytes
    assert factor_bytes(d, form) == gaussians.factors.nbytes + row_scales
    work = mahalanobis(d, form, 1)
    maps = 4 * d * (56**2 + 28**2 + 14**2)
    assert work.bytes == factor_bytes(d, form) + gaussians.means.nbytes + maps + 4 * POSITIONS


def test_bytes_of_inverses_are_those_of_the_papers():
    assert factor_bytes(550, "fp32 inverse") == np.dtype(np.float32).itemsize * POSITIONS * 550**2


def test_a_batch_reads_factors_once():
    one, eight = (mahalanobis(150, "fp16 triangle", batch) for batch in (1, 8))
    assert eight.operations == 8 * one.operations
    assert one.bytes < eight.bytes < 1.5 * one.bytes


def test_a_frame_of_the_error_is_read_and_written_once():
    work = proximal_error(3, 5, 1.0, 2)
    assert work.bytes == 2 * 15 * (1 + 4 + 4)
    assert work.operations == 2 * 15 * (2 * 2 * 5 + 4)


@pytest.mark.parametrize("name", ["resnet18", "wide-resnet50-2"])
def test_operations_of_a_network_are_those_of_its_graph(name):
    import onnx

    backbone = open_backbone(name, layers=None, weights="random", image_size=None, mean=None, std=None, seed=0)
    exported = export_features(backbone, channels=3, projection="gaussian", dimension=20, map_stride=None, seed=0)
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(exported.features), data_prop=True).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    operations, stored = 0, 0
    for node in graph.node:
        if node.op_type == "Conv":
            operations += 2 * math.prod(shapes[node.output[0]][1:]) * math.prod(weights[node.input[1]][1:])
            stored += sum(math.prod(weights[tensor]) for tensor in node.input[1:])
    work = network(name, 20, "fp16", 1)
    assert work.operations == operations
    maps = sum(math.prod(output) for output in ((20, 56, 56), (20, 28, 28), (20, 14, 14)))
    # Biases are zero where weights are drawn, and zeros are left out of the graph.
    assert work.bytes == pytest.approx(2 * stored + 3 * 224**2 + 4 * maps, rel=1e-3)
    batch = network(name, 20, "int8", 8)
    assert batch.bytes == pytest.approx(stored + 8 * (3 * 224**2 + 4 * maps), rel=1e-3)


def test_a_network_has_no_more_dimensions_than_channels():
    with pytest.raises(InputError, match="resnet18 has 448 channels"):
        network("resnet18", 449, "fp16", 1)


def test_ratio_of_inverses_is_that_of_their_squares():
    found = {one.name: one for one in ratios(DEVICES["orin-nx"])}
    assert found["fp32 inverse"].bytes == pytest.approx((550 / 150) ** 2)
    assert found["fp32 inverse"].step == pytest.approx((550 / 150) ** 2, rel=0.05)
    assert 1 < found["fp32 inverse"].frame < found["fp32 inverse"].step
    assert found["fp32 inverse to fp16 triangle"].bytes > 3 * found["fp32 inverse"].bytes


def test_the_page_shows_what_the_command_prints(capsys):
    assert main(["bench", "roofline"]) == 0
    (shown,) = re.findall(r"```\n\$ flawline bench roofline\n(.*?)```", PAGE, re.DOTALL)
    assert shown == capsys.readouterr().out


def test_chosen_devices_and_dimensions_alone_are_told(tmp_path, capsys):
    path = tmp_path / "roofline.json"
    words = ["bench", "roofline", "--device", "thor,h200", "--dims", "100", "--batch", "2", "--json", str(path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "orin" not in printed.replace("JL at", "")
    written = json.loads(path.read_text())
    assert written["computed"] == "from data sheets, not measured"
    steps = written["results"]["steps"]
    assert {(step["dimension"], step["batch"]) for step in steps} == {(100, 2), (None, 2)}
    (triangle,) = (step for step in steps if step["name"] == "fp16 triangle, d 100")
    assert triangle["floors_s"]["h200"] == pytest.approx(triangle["bytes"] / 4.8e12)
    (quantised,) = (step for step in steps if step["name"] == "resnet18 int8, d 100")
    assert quantised["floors_s"]["thor"] == pytest.approx(quantised["bytes"] / 273e9)
    assert quantised["bound"] == {"thor": "bytes", "h200": "operations"}


def test_a_device_that_is_not_in_the_table_is_refused(capsys):
    assert main(["bench", "roofline", "--device", "orin-nx,tx2"]) == 2
    assert "--device tx2: expected orin-nano" in capsys.readouterr().err
