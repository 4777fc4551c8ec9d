"""`flawline bench latency` with an engine on a GPU, on the stand-in driver, where times mean nothing."""

import json
from pathlib import Path

import pytest

from flawline.__main__ import main
from flawline.benchmarks.costs import footprint
from flawline.runtime.images import write_image
from tests.emulation.standin import StandIn
from tests.runtime.reconstructions import random_frames, reconstruction_bundle

STAGES = {"resize", "network", "kernel"}


@pytest.fixture
def of_padim(tiny_bundle: Path, tmp_path: Path) -> Path:
    return tiny_bundle


@pytest.fixture
def of_reconstruction(tmp_path: Path) -> Path:
    return reconstruction_bundle(tmp_path / "made.flaw").path


@pytest.mark.parametrize(
    ("bundle", "engines"),
    [
        ("of_padim", ["tensorrt"]),
        ("of_padim", ["onnxruntime", "tensorrt"]),
        ("of_reconstruction", ["onnxruntime", "tensorrt"]),
    ],
)
def test_a_detector_on_a_gpu_is_measured_and_the_floor_is_of_those_on_the_cpu(
    bundle: str,
    engines: list[str],
    gpu: StandIn,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Of a process of its own, which would find no stand-in.
    monkeypatch.setattr(footprint, "peak_memory_bytes", lambda way, image, *, backend=None: 1)
    images = tmp_path / "images"
    images.mkdir()
    for index, frame in enumerate(random_frames(3)):
        write_image(images / f"{index}.png", frame)
    out = tmp_path / "latency.json"
    words = ["--images", str(images), "--backends", ",".join(engines), "--threads", "1", "--runs", "4"]
    path = request.getfixturevalue(bundle)
    assert main(["bench", "latency", str(path), *words, "--json", str(out)]) == 0
    measured = {one["engine"]: one for one in json.loads(out.read_text())["results"]["latency"]}
    assert sorted(measured) == engines
    assert set(measured["tensorrt"]["stages"]) >= STAGES
    printed = capsys.readouterr().out
    assert "fp32 tensorrt" in printed
    assert printed.count("kernel floor") == ("onnxruntime" in engines and bundle == "of_padim")
    assert gpu.calls("cuGraphLaunch") > 0
