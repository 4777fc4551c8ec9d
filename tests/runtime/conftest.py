"""A web to play, engines, and bundles of a graph that hands its frame through, for what must not depend on a fit."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flawline.runtime import bundle, kernels
from flawline.runtime.backends import BACKENDS, installed
from flawline.runtime.images import write_image
from tests.runtime import web_bundles


def graph(height: int, width: int, operator: str = "Identity", open_sides: Sequence[int] = ()) -> bytes:
    """An ONNX file: uint8 (N, H, W, 1) to float32 (N, 1, H, W), through one operator on float32."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["numbers"], ["changed"]),
        helper.make_node("Transpose", ["changed"], ["features_0"], perm=[0, 3, 1, 2]),
    ]
    shapes = [["N", height, width, 1], ["N", 1, height, width]]
    for side in open_sides:
        shapes[0][1 + side] = shapes[1][2 + side] = "HW"[side]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "through",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, shapes[0])],
            [helper.make_tensor_value_info("features_0", TensorProto.FLOAT, shapes[1])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def through_bundle(
    path: Path, *, size: int = 32, features: bytes | None = None, golden: Sequence[bundle.Golden] = ()
) -> bundle.Bundle:
    """A bundle whose anomaly map is the frame itself, grey: one Gaussian of mean 0 and variance 1 for every pixel."""
    frame = np.full((size, size), 7, np.uint8)
    sides = {"height": size, "width": size}
    manifest = bundle.PadimManifest(
        input=bundle.Input(channels=1, interpolation="area", source_height=size, source_width=size, **sides),
        network=bundle.Network(
            name="through",
            layers=["frame"],
            weights=bundle.Weights(origin="none", sha256="0" * 64, random=False),
            precision="fp32",
            input="frame",
            outputs=[bundle.Output(name="features_0", **sides)],
            total_stride=1,
        ),
        projection=bundle.Projection(kind="none", seed=0, input_dimension=1, dimension=1, generator="philox4x64"),
        map=bundle.Map(upsampling="bilinear", sigma=0.0, **sides),
        gaussian=bundle.Gaussian(
            tie="global",
            count=1,
            components=1,
            epsilon=0.0,
            epsilon_relative=False,
            shrinkage=None,
            factors="fp32",
            block_rows=8,
        ),
        threshold=bundle.Threshold(false_reject_rate=0.5, score=100.0, calibration_images=1),
        fit=bundle.Fit(images=2, calibration_images=1, group_by=None, seed=0, sources_sha256="0" * 64),
        parity=None,
        golden=bundle.GoldenFacts(relative_tolerance=1e-3),
    )
    statistics = {
        "means": np.zeros((1, 1, 1), np.float32),
        "factors": kernels.pack(np.ones((1, 1, 1, 1), np.float32), np.float32),
        "scales": np.ones((1, 1), np.float32),
        "assignment": np.zeros(size * size, np.int32),
        "calibration_scores": np.array([100], np.float32),
    }
    own = [bundle.Golden(frame=frame, score=7.0, map=frame.astype(np.float32))]
    return bundle.write(path, manifest, features or graph(size, size), statistics, list(golden) or own)


def remade(written: bundle.Bundle, path: Path, **sections: dict[str, object]) -> bundle.Bundle:
    """The bundle with another manifest, whole and hashed: `remade(b, path, input={"height": 64})`."""
    changed = {
        name: msgspec.structs.replace(getattr(written.manifest, name), **fields) for name, fields in sections.items()
    }
    manifest = msgspec.structs.replace(written.manifest, **changed)
    return bundle.write(path, manifest, written.features, dict(written.statistics), written.golden)


@pytest.fixture(params=BACKENDS)
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    if request.param not in installed():
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(name="graph")
def _graph() -> Callable[..., bytes]:
    return graph


@pytest.fixture(name="remade")
def _remade() -> Callable[..., bundle.Bundle]:
    return remade


@pytest.fixture
def make_bundle() -> Callable[..., bundle.Bundle]:
    return through_bundle


@pytest.fixture(scope="session")
def through(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 32 x 32 px whose anomaly map is the frame. Do not change it."""
    return through_bundle(tmp_path_factory.mktemp("through") / "through.flaw").path


@pytest.fixture
def web(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder of grey images of several heights, and the web they make: uint8 (97, 24), below 255."""
    folder = tmp_path / "web"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (97, 24), np.uint8)
    for number, rows in enumerate(np.split(pixels, [40, 41, 70])):
        write_image(folder / f"{number}.png", rows)
    return folder, pixels


@pytest.fixture
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name != "tqdm_monitor"]
    assert not left


@pytest.fixture
def web_bundle(tmp_path: Path) -> Callable[..., bundle.Bundle]:
    return lambda **options: web_bundles.web_bundle(tmp_path / "web.flaw", **options)


@pytest.fixture
def reference_distances() -> Callable[..., np.ndarray]:
    return web_bundles.reference_distances


@pytest.fixture
def texture() -> Callable[..., np.ndarray]:
    return web_bundles.texture
