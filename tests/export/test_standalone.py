"""A bundle as one ONNX file: it scores as the bundle does in every form, and one that does not is never written."""

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from flawline import __version__
from flawline.__main__ import main
from flawline.calibration.statistics import StatisticsOptions
from flawline.export import standalone
from flawline.export.fit import FitOptions, fit_bundle
from flawline.export.onnx_file import MOST_BYTES
from flawline.export.parity import ParityError
from flawline.export.standalone import compose_standalone, standalone_bytes, write_standalone
from flawline.export.standalone_parity import Standalone, check
from flawline.runtime import BundleError, Detector, InputError, ResourceError, bundle, kernels, memory
from flawline.runtime.extras import LazyModule
from flawline.runtime.images import list_images, read_image, write_image

PLAIN = {
    "Cast", "Conv", "Gather", "LessOrEqual", "MatMul", "Mul", "Not", "ReduceMax", "ReduceMin", "ReduceSumSquare", "Relu",
    "Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze", "Concat", "Add", "Div", "Expand", "Pad",
}  # fmt: skip


def options(tiny_network: Path, statistics: dict[str, Any] | None = None, **changes: Any) -> FitOptions:
    return FitOptions(
        **{
            "backbone": str(tiny_network),
            "layers": ("fine", "coarse"),
            "image_size": 64,
            "dimension": 10,
            "threads": 1,
            "smoothing_px": 4.0,
            "statistics": StatisticsOptions(**(statistics or {})),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def colour_images(good_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colour")
    for path in list_images(good_images):
        grey = read_image(path)
        write_image(folder / path.name, np.stack([grey, grey[::-1], 255 - grey], axis=-1))
    return folder


def with_factors(opened: bundle.Bundle, make: Callable[[kernels.Gaussians], kernels.Gaussians]) -> bundle.Bundle:
    """The bundle with other factors, its golden frames scored with them."""
    statistics = opened.statistics
    gaussians = make(kernels.Gaussians(*(statistics[name] for name in ("means", "factors", "scales", "assignment"))))
    kind = {"float16": "fp16", "float32": "fp32", "int8": "int8"}[gaussians.factors.dtype.name]
    facts = msgspec.structs.replace(opened.manifest.gaussian, factors=kind, form=gaussians.form, rank=gaussians.rank)
    tensors = {**statistics, "factors": gaussians.factors, "scales": gaussians.scales}
    if gaussians.row_scales is not None:
        tensors["row_scales"] = gaussians.row_scales
    changed = replace(opened, manifest=msgspec.structs.replace(opened.manifest, gaussian=facts), statistics=tensors)
    with Detector(changed, backend="onnxruntime", threads=1) as detector:
        golden = [
            bundle.Golden(frame=item.frame, score=result.score, map=result.map)
            for item in opened.golden
            for result in [detector(item.frame)]
        ]
    return replace(changed, golden=golden)


def in_int8(gaussians: kernels.Gaussians) -> kernels.Gaussians:
    triangles = kernels.unpack(gaussians.factors, gaussians.dimension)
    factors, row_scales = kernels.pack_int8(triangles)
    return replace(gaussians, factors=factors, row_scales=row_scales)


def woodbury(rank: int, dtype: str) -> Callable[[kernels.Gaussians], kernels.Gaussians]:
    """Factors of that rank which take a part of every vector's length away, so that a distance remains."""

    def make(gaussians: kernels.Gaussians) -> kernels.Gaussians:
        rows = kernels.unpack(gaussians.factors, gaussians.dimension)[..., -rank:, :]
        rows /= 1.25 * np.linalg.norm(rows, axis=(-2, -1), keepdims=True)
        if dtype == "int8":
            factors, row_scales = kernels.pack_int8(rows)
            return replace(gaussians, factors=factors, row_scales=row_scales, rank=rank)
        return replace(gaussians, factors=kernels.pack(rows, dtype), rank=rank)

    return make


def pixels(opened: bundle.Bundle, count: int, seed: int = 0) -> np.ndarray:
    """Frames of the network's size in the layout of its input."""
    frame = opened.manifest.input
    shape = (frame.channels, frame.height, frame.width)
    if frame.layout == "nhwc":
        shape = (*shape[1:], shape[0])
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> bundle.Bundle:
    return bundle.read(tiny_bundle)


@pytest.fixture(scope="module")
def model(tiny: bundle.Bundle) -> bytes:
    return compose_standalone(tiny)


@pytest.mark.parametrize(
    ("statistics", "changes"),
    [
        ({"tie": "position", "components": 2}, {"map_stride": 16}),
        ({"tie": "column"}, {"upsampling": "nearest"}),
        ({"tie": "column", "components": 3, "factors": "fp32"}, {}),
        ({"tie": "global"}, {"smoothing_px": 0.0}),
        ({"tie": "global", "components": 4}, {"layout": "nchw"}),
        ({"factors": "fp32"}, {"upsampling": "nearest"}),
        # A reflected border wider than the map, and blocks of no rows.
        ({}, {"smoothing_px": 40.0, "dimension": 3}),
    ],
    ids=str,
)
def test_every_form_scores_as_its_bundle_does(statistics, changes, good_images, tiny_network, tmp_path):
    made = fit_bundle(list_images(good_images), tmp_path / "made.flaw", options(tiny_network, statistics, **changes))
    report = write_standalone(made, tmp_path / "made.onnx", threads=1)
    assert report["images"] == len(made.golden)
    assert report["relative_error_max"] < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.flaw", "made.onnx"]


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_colour_frames_score_as_their_bundle_does(layout, colour_images, tiny_network, tmp_path):
    made = fit_bundle(list_images(colour_images), tmp_path / "made.flaw", options(tiny_network, layout=layout))
    frames = [read_image(path) for path in list_images(colour_images)[:3]]
    report = check(compose_standalone(made), made, frames)
    assert report["images"] == len(made.golden) + 3
    assert report["relative_error_max"] < 1e-5


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(in_int8, id="int8 triangle"),
        pytest.param(woodbury(7, "float32"), id="fp32 woodbury"),
        pytest.param(woodbury(3, "float16"), id="fp16 woodbury of fewer rows than blocks"),
        pytest.param(woodbury(9, "int8"), id="int8 woodbury"),
    ],
)
def test_every_type_and_form_of_factors_scores_as_its_bundle_does(make, tiny):
    changed = with_factors(tiny, make)
    model = compose_standalone(changed)
    report = check(model, changed)
    assert report["relative_error_max"] < 1e-5
    types = {tensor.data_type for tensor in onnx.load_from_string(model).graph.initializer}
    # None of 8 bits, which TensorRT takes only through DequantizeLinear.
    assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert abs(changed.golden[0].score / tiny.golden[0].score - 1) > 1e-7


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-tensorrt"])
def test_every_precision_of_the_network_scores_as_its_bundle_does(precision, good_images, tiny_network, tmp_path):
    made = fit_bundle(list_images(good_images), tmp_path / "made.flaw", options(tiny_network, precision=precision))
    model = compose_standalone(made)
    report = check(model, made)
    assert report["relative_error_max"] < 1e-5
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}
    assert metadata["flawline.precision"] == precision


def test_frames_in_a_batch_score_as_they_do_alone(tiny, model):
    frames = pixels(tiny, 5)
    with Standalone(model, tiny) as run:
        batch = run.run(frames)
        alone = [run.run(frame[None]) for frame in frames]
    assert batch["score"].shape == batch["verdict"].shape == (5,)
    assert batch["map"].shape == (5, 16, 16)
    for name in ("score", "map"):
        np.testing.assert_allclose(batch[name], np.concatenate([one[name] for one in alone]), rtol=1e-5)
    np.testing.assert_array_equal(batch["score"], batch["map"].max(axis=(1, 2)))


def test_the_verdict_is_that_of_the_threshold_to_the_last_bit(tiny, model):
    frame = pixels(tiny, 1)
    with Standalone(model, tiny) as run:
        score = float(run.run(frame)["score"][0])
    below = np.nextafter(score, 0)  # not a float32, so that rounding it would be the score itself
    for threshold, rejected in ((score, False), (below, True), (1e300, False)):
        facts = msgspec.structs.replace(tiny.manifest.threshold, score=threshold)
        changed = replace(tiny, manifest=msgspec.structs.replace(tiny.manifest, threshold=facts))
        with Standalone(compose_standalone(changed), changed) as run:
            assert run.run(frame)["verdict"].tolist() == [rejected]


def test_the_same_bundle_gives_the_same_bytes(tiny, model):
    assert compose_standalone(tiny) == model


def test_the_size_is_known_beforehand(tiny, model):
    assert 0 <= standalone_bytes(tiny) - len(model) <= 1 << 16


def test_the_file_is_plain_and_explains_itself(tiny, model):
    proto = onnx.load_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version <= 20) for entry in proto.opset_import] == [("", True)]
    assert {node.op_type for node in proto.graph.node} <= PLAIN
    assert [value.name for value in proto.graph.input] == ["frame"]
    assert [value.name for value in proto.graph.output] == ["score", "map", "verdict"]
    manifest = tiny.manifest
    assert {entry.key: entry.value for entry in proto.metadata_props} == {
        "flawline.bundle_sha256": tiny.hash,
        "flawline.version": __version__,
        "flawline.network": "tiny",
        "flawline.precision": "fp32",
        "flawline.input_height": "64",
        "flawline.input_width": "64",
        "flawline.input_layout": "nhwc",
        "flawline.input_mode": "grey",
        "flawline.interpolation": manifest.input.interpolation,
        "flawline.threshold": repr(manifest.threshold.score),
        "flawline.false_reject_rate": "0.05",
        "flawline.calibration_images": str(manifest.threshold.calibration_images),
    }


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_bytes_are_cast_before_anything_else_is_done_with_them(layout, good_images, tiny_network, tmp_path):
    """As TensorRT demands."""
    made = fit_bundle(list_images(good_images), tmp_path / "made.flaw", options(tiny_network, layout=layout))
    proto = onnx.load_from_string(compose_standalone(made))
    assert [node.op_type for node in proto.graph.node if "frame" in node.input] == ["Cast"]


def test_openvino_reads_the_file_and_agrees(tiny, model, tmp_path):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    openvino = LazyModule("openvino", "pip install openvino", without=("openvino_telemetry",))
    path = tmp_path / "tiny.onnx"
    path.write_bytes(model)
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", properties)
    frames = pixels(tiny, 3)
    received = {output.any_name: value for output, value in compiled(frames).items()}
    with Standalone(model, tiny) as run:
        expected = run.run(frames)
    for name in ("score", "map"):
        np.testing.assert_allclose(received[name], expected[name], rtol=1e-4)
    np.testing.assert_array_equal(received["verdict"], expected["verdict"])


def test_the_documented_example_gives_the_score_of_the_bundle(tiny, model, good_images, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "standalone.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    shutil.copy(list_images(good_images)[0], tmp_path / "shot.png")
    (tmp_path / "part.onnx").write_bytes(model)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    with Detector(tiny, backend="onnxruntime") as detector:
        expected = detector(read_image(tmp_path / "shot.png"))
    np.testing.assert_allclose(names["score"], [expected.score], rtol=1e-5)
    np.testing.assert_allclose(names["anomaly_map"][0], expected.map, rtol=1e-5)
    assert names["reject"].tolist() == [expected.verdict == "reject"]


def altered(model: bytes, name: str, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """The file with another constant in the place of one."""
    proto = onnx.load_from_string(model)
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor).copy()), name))
    return bytes(proto.SerializeToString())


def one_mean_off(means: np.ndarray) -> np.ndarray:
    means[0, 0, 0, 0] += 0.01 * abs(means).max()
    return means


@pytest.mark.parametrize(
    ("constant", "change", "message"),
    [
        ("detector/scales", lambda value: value * np.float32(1.01), "does not score like the bundle's golden scores"),
        ("detector/scales", lambda value: value * np.float32(1.001), "does not score like the bundle's detector"),
        ("detector/means", one_mean_off, "does not score like"),
        ("detector/means", lambda value: value * np.float32(np.nan), "largest relative error nan"),
        ("detector/smoothed/rows", lambda value: value[::-1].copy(), "does not score like"),
        ("detector/threshold", lambda value: value * np.float32(0), "otherwise than by the threshold of"),
    ],
)
def test_a_file_that_scores_otherwise_is_caught_and_not_written(
    constant, change, message, tiny, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(standalone, "compose_standalone", lambda opened: altered(model, constant, change))
    with pytest.raises(ParityError, match=message):
        write_standalone(tiny, tmp_path / "tiny.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_not_a_number_rejects_its_frame(tiny, model):
    broken = altered(model, "detector/means", lambda value: value * np.float32(np.nan))
    with Standalone(broken, tiny) as run:
        assert run.run(pixels(tiny, 2))["verdict"].tolist() == [True, True]


def test_a_frame_of_another_kind_is_refused(tiny, model):
    with pytest.raises(InputError, match=r"this bundle takes uint8 \(height, width\)"):
        check(model, tiny, [np.zeros((64, 64, 3), np.uint8)])


def test_a_file_beyond_the_limit_of_its_format_is_refused_before_it_is_built(tiny):
    manifest = tiny.manifest
    large = msgspec.structs.replace(
        manifest,
        projection=msgspec.structs.replace(manifest.projection, dimension=900, input_dimension=1792),
        gaussian=msgspec.structs.replace(manifest.gaussian, count=3136),
    )
    too_large = replace(tiny, manifest=large)
    assert standalone_bytes(too_large) > MOST_BYTES
    with pytest.raises(
        InputError, match=r"3\.2 GB for 3136 Gaussians of 900 dimensions; .* at most 2\.1 GB: .* --dim, or --tie column"
    ):
        compose_standalone(too_large)


def test_a_precision_that_belongs_to_one_engine_is_refused(tiny):
    network = msgspec.structs.replace(tiny.manifest.network, precision="bf16")
    with pytest.raises(
        InputError, match=r"bf16 belong to the arithmetic of openvino.* choose one of .* fp32, fp16, int8"
    ):
        compose_standalone(replace(tiny, manifest=msgspec.structs.replace(tiny.manifest, network=network)))


def test_a_feature_graph_that_is_none_is_refused(tiny, tmp_path):
    made = bundle.write(tmp_path / "made.flaw", tiny.manifest, b"\xff" * 64, tiny.statistics, tiny.golden)
    with pytest.raises(BundleError, match="the feature graph is no ONNX file"):
        compose_standalone(made)


def test_a_feature_graph_that_the_manifest_describes_otherwise_is_refused(tiny):
    network = msgspec.structs.replace(tiny.manifest.network, input="image")
    with pytest.raises(BundleError, match=r"takes \['frame'\] and gives .* the manifest says \['image'\]"):
        compose_standalone(replace(tiny, manifest=msgspec.structs.replace(tiny.manifest, network=network)))


def test_too_little_memory_is_told_before_anything_is_built(tiny, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match=r"a standalone file of 0 MB needs about .* --tie column or global"):
        compose_standalone(tiny)


def test_gaussians_assigned_otherwise_than_tied_are_refused(tiny):
    statistics = {**tiny.statistics, "assignment": tiny.statistics["assignment"][::-1].copy()}
    with pytest.raises(BundleError, match="assignment is not what the manifest's tie by position means"):
        compose_standalone(replace(tiny, statistics=statistics))


@pytest.mark.parametrize("name", ["missing/out.onnx", "."])
def test_a_name_that_cannot_be_written_is_refused(name, tiny, tmp_path):
    with pytest.raises(InputError, match="expected the name of a file, in a folder that exists and can be written to"):
        write_standalone(tiny, tmp_path / name)


@pytest.mark.parametrize(
    "held", [b"notes of a day", b"", b"\x89PNG\r\n\x1a\n" + bytes(64)], ids=["text", "empty", "picture"]
)
def test_a_file_that_is_no_onnx_file_is_not_replaced(held, tiny_bundle, tmp_path, capsys):
    out = tmp_path / "precious"
    out.write_bytes(held)
    assert main(["export", str(tiny_bundle), "--to", "standalone", "--out", str(out), "--threads", "1"]) == 2
    assert capsys.readouterr().err == (
        f"flawline export: {out} exists and is no ONNX file; expected a new name, or an ONNX file to replace: choose another "
        "--out, or remove it first\n"
    )
    assert out.read_bytes() == held
    assert list(tmp_path.iterdir()) == [out]


def test_a_bundle_s_manifest_is_not_replaced(tiny_bundle, tmp_path):
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy.flaw")
    before = (copy / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="exists and is no ONNX file"):
        write_standalone(bundle.read(copy), copy / "manifest.json")
    assert (copy / "manifest.json").read_bytes() == before


def test_an_onnx_file_is_replaced(tiny, tiny_network, model, tmp_path):
    out = Path(shutil.copy(tiny_network, tmp_path / "out.onnx"))
    write_standalone(tiny, out)
    assert out.read_bytes() == model


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_behind(tiny_bundle, tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    # In a mount namespace of its own: no other process sees this disk, and it ends with the process.
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    mount += ['mount -t tmpfs -o size=16k none "$0" && exec "$@"', str(room)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, timeout=60).returncode:
        pytest.skip("this process may not mount a small file system")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from flawline.export.standalone import write_standalone\n"
        "from flawline.runtime import ResourceError, bundle\n"
        "target = Path(sys.argv[2])\n"
        "try:\n"
        "    write_standalone(bundle.read(sys.argv[1]), target)\n"
        "except ResourceError as error:\n"
        "    print(error)\n"
        "print([path.name for path in target.parent.iterdir()])\n"
    )
    command = [*mount, sys.executable, "-c", code, str(tiny_bundle), str(room / "tiny.onnx")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert lines[0].startswith(f"{room / 'tiny.onnx'} cannot be written: {os.strerror(errno.ENOSPC)}; nothing was kept")
    assert lines[1:] == ["[]"]
