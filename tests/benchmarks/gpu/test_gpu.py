"""The measurements of `flawline bench gpu`, made on the stand-in driver."""

import functools
import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from flawline.__main__ import main
from flawline.benchmarks.commands import bench_gpu
from flawline.benchmarks.gpu import distances, frames, images, text
from flawline.benchmarks.gpu.machine import describe_gpu
from flawline.benchmarks.gpu.reading import Reader, Region
from flawline.benchmarks.gpu.session import session
from flawline.benchmarks.gpu.torch_engine import TorchEngine
from flawline.benchmarks.timing import Timing
from flawline.export.features import open_backbone
from flawline.runtime.errors import FlawlineError
from flawline.runtime.gpu.device import Device
from tests.benchmarks.gpu.conftest import HostEngine

SMALL = ["--map-size", "4", "--frame-px", "40", "--rounds", "1"]


def timing(nanoseconds):
    return Timing.of([nanoseconds])


@pytest.mark.parametrize("size_bytes", [16, 4096, 40_000, 160_016])
def test_every_layout_reads_every_byte_once(gpu, size_bytes):
    with session(Device(), "in a test") as opened:
        _read(opened, size_bytes)


def _read(opened, size_bytes):
    data = np.random.default_rng(0).integers(0, 1 << 32, size_bytes // 4, np.uint32)
    reader = Reader(opened)
    region = Region(opened.buffers.upload(data), data.nbytes)
    reader.check(region, np.bitwise_xor.reduce(data))
    with pytest.raises(FlawlineError, match="nothing was timed"):
        reader.check(region, ~np.bitwise_xor.reduce(data))


@pytest.mark.parametrize("factors", ["float16", "float32", "int8"])
def test_models_that_take_turns_exceed_the_cache(gpu, factors):
    measured = distances.measure(Device(), 9, factors, map_size=4, beyond_bytes=8_000, rounds=1, inside=True)
    assert measured.exceeds_cache
    assert measured.copies == 8_000 // measured.factor_bytes + 1
    assert set(measured.timings) == {"kernel", "kernel, 8 frames", "read", "projection inside"}
    maps = 4 * 9 * (16 + 4 + 1)
    assert measured.bytes == measured.factor_bytes + 16 * 4 * 9 + maps + 4 * 16


def test_a_kernel_that_is_wrong_is_not_timed(gpu, monkeypatch):
    monkeypatch.setattr(distances, "mahalanobis", lambda x, gaussians: np.ones(x.shape[:2], np.float32))
    with pytest.raises(FlawlineError, match="disagrees with that of the CPU"):
        distances.measure(Device(), 5, "float16", map_size=4, beyond_bytes=1, rounds=1)


def test_kernels_on_images_are_held_against_a_read_of_as_many_bytes(gpu, monkeypatch):
    monkeypatch.setattr(images, "INPUT_PX", 16)
    monkeypatch.setattr(images, "MOST_COPIES", 4)
    found = list(images.measure(Device(), 40, 9, 2.0, beyond_bytes=20_000, rounds=1))
    frame, map_ = 40 * 40, 9 * 9
    assert {one.name: one.bytes for one in found} == {
        images.PSE: frame * (1 + 4 + 4),
        "resize": 3 * (frame + 16 * 16),
        "smooth": 4 * (2 * map_ + 1),
        "frame map": 4 * map_ + frame * (4 + 1),
    }
    assert [one.copies for one in found] == [2, 4, 4, 3]
    assert [one.exceeds_cache for one in found] == [True, True, False, True]
    assert all(set(one.timings) == {"kernel", "read"} for one in found)
    assert "smooth: 4 frames are so little" in "\n".join(text.on_images(found))


@pytest.mark.parametrize("wrong", [0, np.nan])
def test_an_error_that_is_wrong_is_not_timed(gpu, monkeypatch, wrong):
    right = images.proximally_sensitive_error

    def changed(*arguments, **options):
        error = right(*arguments, **options)
        error.map[0, 3, 4] = wrong
        return error

    monkeypatch.setattr(images, "proximally_sensitive_error", changed)
    with pytest.raises(FlawlineError, match="Sensitive Error: the kernel disagrees with its reference"):
        next(images.measure(Device(), 40, 9, 2.0, beyond_bytes=1, rounds=1))


def test_ratios_are_of_medians():
    measured = distances.Measured(
        dimension=150,
        positions=4,
        factors="float16",
        copies=2,
        exceeds_cache=True,
        factor_bytes=800,
        bytes=1000,
        read_layout=(4, 8),
        timings={"kernel": timing(500), "kernel, 8 frames": timing(600), "read": timing(400)},
    )
    assert measured.bytes_per_second == 2e9
    assert measured.share_of_read == 0.8
    assert measured.cost_of_batch == 1.2
    assert "80%" in "\n".join(text.steps([measured]))


def test_the_command_writes_what_it_measured_on(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_gpu, "BEYOND_CACHE", 0)
    path = tmp_path / "gpu.json"
    words = ["--parts", "kernels,images", "--dims", "150,550", "--factors", "float16"]
    assert main(["bench", "gpu", *SMALL, *words, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    written = json.loads(path.read_text())
    assert written["gpu"]["name"] == describe_gpu(Device()).name
    assert written["gpu"]["name"] in printed
    assert "JL at 150 against selection at 550, float16 factors: the step is" in printed
    assert [one["dimension"] for one in written["results"]["kernels"]] == [150, 550]
    assert written["results"]["images"][0]["bytes"] == 40 * 40 * 9
    assert "times the read" in printed
    assert set(written["results"]) == {"kernels", "images"}
    assert written["environment"]["cpu"]


def test_the_command_tells_everything_of_the_frames_of_a_comparison(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_gpu, "FRAMES", (("resnet18", "select", 24), ("resnet18", "gaussian", 6)))
    monkeypatch.setattr(bench_gpu, "open_backbone", lambda name, **options: backbone(name))
    monkeypatch.setattr(frames, "measure", functools.partial(frames.measure, engine=HostEngine))
    path = tmp_path / "gpu.json"
    words = ["--parts", "frames", "--factors", "float16", "--precision", "fp32", "--runs", "3"]
    assert main(["bench", "gpu", *words, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "resnet18 (torch fp32), gaussian 6 float16, graph" in printed
    assert "resnet18 (torch fp32), gaussian 6 float16, no graph" in printed
    assert printed.count("against gaussian 6: the frame is") == 2, "with the graph and without"
    written = json.loads(path.read_text())
    assert [one["case"]["graph"] for one in written["results"]["frames"]] == [True, False] * 2
    assert all(one["end_to_end"]["p99_ns"] > 0 for one in written["results"]["frames"])
    assert written["settings"]["precision"] == "fp32"


def test_what_was_measured_before_a_failure_is_kept(gpu, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise FlawlineError("torch sees no GPU")

    monkeypatch.setattr(bench_gpu, "BEYOND_CACHE", 0)
    monkeypatch.setattr(images, "measure", fail)
    path = tmp_path / "gpu.json"
    words = ["--parts", "kernels,images", "--dims", "9", "--factors", "float16"]
    assert main(["bench", "gpu", *SMALL, *words, "--json", str(path)]) == 2
    told = capsys.readouterr()
    assert "torch sees no GPU" in told.err
    assert "d 9 float16" in told.out
    assert [one["dimension"] for one in json.loads(path.read_text())["results"]["kernels"]] == [9]


def backbone(name):
    return open_backbone(name, layers=None, weights="random", image_size=64, mean=None, std=None, seed=0)


@pytest.mark.parametrize("graph", [True, False])
def test_a_frame_is_timed_with_the_graph_and_without(gpu, graph):
    cases = [
        frames.Case("resnet18", kind, d, "float16", "fp32", graph) for kind, d in (("select", 12), ("gaussian", 6))
    ]
    measured = frames.measure(Device(), backbone, cases, rounds=3, engine=HostEngine)
    assert [one.case for one in measured] == cases
    assert {one.end_to_end.runs for one in measured} == {3}
    assert gpu.calls("cuGraphLaunch") == (2 * 5 if graph else 0)
    assert "the memory" in list(text.whole_frames(measured))[-1]
    assert measured[0].engine == "torch fp32"


def test_what_torch_says_of_a_frame_that_fails_is_told_in_a_line(monkeypatch):
    class Failing(TorchEngine):
        def __init__(self):
            self._pool, self._runs = None, 1

        def _run(self):
            raise torch.OutOfMemoryError("CUDA out of memory\nsee the documentation")

    for name in ("ExternalStream", "use_mem_pool", "stream"):
        monkeypatch.setattr(torch.cuda, name, nullcontext)
    with pytest.raises(FlawlineError, match=r"^torch failed on a frame: CUDA out of memory$"):
        Failing().enqueue(7)


def test_a_graph_that_was_refused_is_not_told_as_one(gpu):
    gpu.reset(fail="cuStreamBeginCapture@1=801+")
    case = frames.Case("resnet18", "gaussian", 6, "float16", "fp32", True)
    (one,) = frames.measure(Device(), backbone, [case], rounds=3, engine=HostEngine)
    assert "not supported" in one.graph_refused
    assert text.frame_name(one).endswith("float16, no graph")
    assert "asked for and refused" in "\n".join(text.whole_frames([one]))
