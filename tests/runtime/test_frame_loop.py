"""What a detector promises of its life: sizes, thresholds, memory, and its end."""

import math
import tracemalloc

import numpy as np
import pytest

from flawline.runtime import BundleError, Detector, FlawlineError, InputError, ResourceError
from flawline.runtime.images import SMALLEST_SIDE_PX

SIDE = 256
MAP_BYTES = 4 * SIDE * SIDE
OBJECTS_BYTES = 40_000  # results, and what interpreter and engine keep for reuse: they stop well below this


@pytest.fixture
def frames():
    """A good frame of the network's size and one to be resized."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 90, (side, side), np.uint8) for side in (SIDE, SIDE + 44)]


@pytest.mark.parametrize("shape", [(1, 1), (SMALLEST_SIDE_PX - 1, 64), (64, SMALLEST_SIDE_PX - 1)])
def test_a_frame_too_small_to_mean_anything_is_refused(through, shape):
    with Detector.open(through) as detector, pytest.raises(InputError, match="expected at least 16 px each way"):
        detector(np.zeros(shape, np.uint8))


def test_the_smallest_frame_is_scored(through):
    with Detector.open(through) as detector:
        assert detector(np.full((SMALLEST_SIDE_PX, SMALLEST_SIDE_PX), 9, np.uint8)).score == 9


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_threshold_that_is_not_finite_is_refused_and_the_old_one_stays(through, value):
    with Detector.open(through) as detector:
        with pytest.raises(InputError, match=f"threshold is {value}; expected a finite score"):
            detector.threshold = value
        assert detector.threshold == 100.0


def test_closing_twice_is_closing_once(through):
    detector = Detector.open(through)
    detector.close()
    detector.close()
    with Detector.open(through) as other:
        other.close()


def test_a_closed_detector_says_so(through):
    detector = Detector.open(through)
    detector.close()
    with pytest.raises(FlawlineError, match="the detector is closed"):
        detector(np.zeros((32, 32), np.uint8))


def test_a_frame_takes_one_map_of_memory_and_gives_it_back(make_bundle, tmp_path, frames):
    path = make_bundle(tmp_path / "large.flaw", size=SIDE).path
    with Detector.open(path) as detector:
        for frame in frames:
            detector(frame)
        # Allocated beforehand: what the test notes down must not look like growth.
        peaks, afters = np.zeros((2, 500), np.int64)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(500):
                tracemalloc.reset_peak()
                detector(frames[number % 2])
                after, peak = tracemalloc.get_traced_memory()
                peaks[number], afters[number] = peak - before, after - before
        finally:
            tracemalloc.stop()
    assert peaks.max() < MAP_BYTES + OBJECTS_BYTES
    assert afters.max() < OBJECTS_BYTES


def test_a_manifest_that_asks_for_more_than_the_graph_gives_is_refused_before_memory_is_taken(
    make_bundle, remade, tmp_path
):
    small = make_bundle(tmp_path / "small.flaw")
    greedy = remade(small, tmp_path / "greedy.flaw", input={"height": 1 << 14, "width": 1 << 14})
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="the feature graph takes and gives"):
            Detector.open(greedy.path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24


def test_a_graph_that_leaves_its_size_to_the_manifest_is_refused(make_bundle, graph, tmp_path):
    opened = make_bundle(tmp_path / "open.flaw", features=graph(32, 32, open_sides=(0,)))
    with pytest.raises(BundleError, match="the feature graph takes and gives"):
        Detector.open(opened.path)


def test_what_does_not_fit_into_memory_is_refused(make_bundle, tmp_path, monkeypatch):
    path = make_bundle(tmp_path / "large.flaw", size=SIDE).path
    monkeypatch.setattr("flawline.runtime.memory.available_bytes", lambda: 1_000_000)
    with pytest.raises(ResourceError, match=r"a map of 256 x 256.* needs about .* are available"):
        Detector.open(path)
