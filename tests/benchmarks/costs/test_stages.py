import itertools
from dataclasses import replace

import numpy as np
import pytest

from flawline.benchmarks.costs import batches, footprint, stages, text
from flawline.benchmarks.costs.footprint import Floor
from flawline.benchmarks.costs.report import everything
from flawline.benchmarks.costs.subject import from_bundle
from flawline.benchmarks.costs.ways import Way, engines_of, ways_of
from flawline.benchmarks.fits import fit_from_float
from flawline.export.addition import add_precision
from flawline.export.fit import fit_bundle
from flawline.runtime import Detector, progress
from flawline.runtime.backends import installed
from flawline.runtime.bundle import read
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image


@pytest.fixture(scope="module")
def good(tiles):
    return list_images(tiles / "train/good")


@pytest.fixture(scope="module")
def both(tile_bundle, good, tmp_path_factory):
    """The tiles' detector in fp32 and int8."""
    path = tmp_path_factory.mktemp("both") / "both.flaw"
    add_precision(tile_bundle, "int8", good, path, threads=2)
    return path


@pytest.fixture(scope="module")
def ways(both) -> list[Way]:
    return [way for precision in ("fp32", "int8") for way in ways_of(both, precision, ["onnxruntime"])]


def test_detectors_take_turns_and_each_has_its_own_numbers(ways, good):
    frames = [read_image(path) for path in good[:5]]
    measured, memory = stages.measure(ways, frames, threads=1, runs=7)
    assert [one.name for one in measured] == [
        "fp32 onnxruntime",
        "fp32 onnxruntime, rejected",
        "int8 onnxruntime",
        "int8 onnxruntime, rejected",
    ]
    for one in measured:
        assert one.end_to_end.runs == 7
        assert all(timing.min_ns >= 0 for timing in one.stages.values())
        assert one.end_to_end.min_ns > one.outside_network.min_ns > 0
    assert memory.settled_bytes > 20e6


def test_rejected_frames_are_counted_at_each_threshold(ways, good):
    frames = [read_image(path) for path in good[:6]]
    calibrated, rejected = stages.measure(ways[:1], frames, threads=1, runs=6)[0]
    with Detector.open(ways[0].bundle, backend="onnxruntime") as detector:
        scores = np.array([detector(frame).score for frame in frames])
        lowered = 0.9 * np.median(detector.bundle.statistics["calibration_scores"])
        assert calibrated.rejected_frames == np.count_nonzero(scores > detector.threshold)
    assert rejected.rejected_frames == np.count_nonzero(scores > lowered)


def test_a_batch_is_told_per_frame(ways, good):
    frames = [read_image(path) for path in good[:3]]
    found = batches.measure(ways[1], frames, threads=1, rounds=4)
    assert found.frames == 8
    assert found.batched["kernel"].runs == 4
    assert found.kernel_times_cheaper == found.alone["kernel"].p50_ns / found.batched["kernel"].p50_ns


def test_bytes_of_a_precision_are_those_of_its_files(ways, both, good):
    floats, int8 = (footprint.footprint(way, good[0]) for way in ways)
    others = {"manifest.json", "manifest.sha256"}
    own = {file.name: file.stat().st_size for file in both.iterdir() if ".int8." in file.name or file.name in others}
    assert len(own) == 5
    assert int8.bundle_bytes == sum(own.values())
    assert int8.network_bytes == own["features.int8.onnx"]
    assert floats.factor_bytes == int8.factor_bytes == read(both).statistics["factors"].nbytes
    assert int8.peak_memory_bytes > 20e6


def test_auto_is_weighed_once_per_precision_and_told_in_a_line(both, good):
    subject = from_bundle(both, good[0].parent, precisions=None, engines=["onnxruntime"])
    report = everything(subject, thread_counts=[1], runs=2)
    fp32, int8 = report.results["auto_peaks"]
    assert (fp32["precision"], int8["precision"]) == ("fp32", "int8")
    peaks = [one["peak_memory_bytes"] / 1e6 for one in (fp32, int8)]
    assert min(peaks) > 20
    line = "peak memory with --backend auto, of the largest process"
    assert f"{line}: fp32 {peaks[0]:.0f}, int8 {peaks[1]:.0f} MB" in report.lines


def test_what_takes_long_tells_how_far_it_is(both, good, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_SECONDS_PER_LINE", 0.0)
    subject = from_bundle(both, good[0].parent, precisions=None, engines=["onnxruntime"])
    everything(subject, thread_counts=[1], runs=8)
    said = capsys.readouterr().err.splitlines()
    for line in (
        "weighing: detector 1 of 2",
        "weighing with every engine: precision 1 of 2",
        "timing, threads 1: frame 71 of 72",
        "batches, fp32 onnxruntime, threads 1: call 9 of 10",
        "batches, int8 onnxruntime, threads 1: call 9 of 10",
    ):
        assert said.count(line) == 1


def test_auto_takes_no_more_memory_than_the_larger_of_the_engines_alone(ways, good):
    if not {"onnxruntime", "openvino"} <= set(installed()):
        pytest.skip("needs two engines: OpenVINO is not installed")
    alone = [footprint.peak_memory_bytes(ways[0], good[0], backend=name) for name in ("onnxruntime", "openvino")]
    largest = footprint.peak_memory_bytes(ways[0], good[0], backend="auto")
    assert min(alone) - 10e6 < largest < max(alone) + 10e6


def test_each_precision_has_the_floor_of_its_own_factors(tile_bundle, good, tmp_path):
    path = tmp_path / "mixed.flaw"
    int8 = add_precision(tile_bundle, "int8", good, path, factors="int8", threads=2).select("int8").statistics
    subject = from_bundle(path, good[0].parent, precisions=None, engines=["onnxruntime"])
    results = everything(subject, thread_counts=[1], runs=2).results
    assert [(one["precision"], one["factor_bytes"]) for one in results["floor"]] == [
        ("fp32", read(path).statistics["factors"].nbytes),
        ("int8", int8["factors"].nbytes + int8["row_scales"].nbytes),
    ]
    for one in results["floor"]:
        assert one["floor_ns"] == 1e9 * one["factor_bytes"] / one["bytes_per_second"]


def test_a_floor_is_compared_with_kernels_of_its_precision_and_threads_alone(ways, good):
    frames = [read_image(path) for path in good[:3]]
    measured = [one for threads in (1, 2) for one in stages.measure(ways, frames, threads=threads, runs=3)[0]]
    for precision, threads in itertools.product(("fp32", "int8"), (1, 2)):
        own = [one for one in measured if (one.setup.precision, one.threads) == (precision, threads)]
        assert len(own) == 2
        (line,) = text.floors([Floor(precision, threads, 1000, 1e9, 1000.0)], measured)
        assert line.startswith(f"kernel floor, {precision}, threads: {threads}: 0.00 MB of factors at 1.0 GB/s")
        assert line.endswith(f"takes {min(one.stages['kernel'].p50_ns for one in own) / 1000:.2f} times that")


def test_a_precision_alone_is_what_a_fit_in_it_writes(tile_bundle, tile_options, good, tmp_path):
    whole = fit_bundle(good, tmp_path / "whole", replace(tile_options, precision="int8"))
    alone = fit_from_float(tile_bundle, "int8", good, tmp_path / "alone", threads=2)
    assert alone.manifest == whole.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "whole"]


def test_engines_of_a_precision_are_those_that_compute_in_it():
    assert engines_of("fp32", ["openvino", "onnxruntime"]) == ("onnxruntime", "openvino")
    assert engines_of("int8", ["openvino", "onnxruntime"]) == ("onnxruntime",)
    assert engines_of("fp16", ["tensorrt", "onnxruntime"]) == ("onnxruntime", "tensorrt")
    assert "tensorrt" not in engines_of("fp32")
    with pytest.raises(InputError, match="openvino does not compute in int8; expected onnxruntime"):
        engines_of("int8", ["openvino"])


def test_a_precision_that_a_bundle_does_not_hold_is_refused(tile_bundle):
    with pytest.raises(InputError, match="holds no network in int8"):
        ways_of(tile_bundle, "int8", ["onnxruntime"])
    assert read(tile_bundle).precisions == ("fp32",)
