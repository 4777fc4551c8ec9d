"""Reconstruction detectors on the stand-in driver: scores and maps are those of the CPU, and planted faults are found."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flawline.runtime import FlawlineError, ResourceError
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle.manifest import ReconstructionManifest
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.pipeline import Pipeline
from flawline.runtime.gpu.programs import Program
from flawline.runtime.gpu.reconstruction import ReconstructionScoring
from flawline.runtime.gpu.room import needed_bytes
from flawline.runtime.gpu.scorer import GpuScorer
from flawline.runtime.gpu.scoring import Addresses, Calls
from flawline.runtime.gpu.stream import Stream
from flawline.runtime.kernels.cuda.calls import Call
from flawline.runtime.reconstruction_scorer import ReconstructionScorer
from tests.emulation.standin import StandIn
from tests.fitted_reconstructions import FITTED, SIDE, Fitted, fit, image
from tests.runtime import reconstructions
from tests.runtime.gpu.conftest import EmulatedEngine, emulated
from tests.runtime.gpu.test_scorer import SLOW

TOLERANCE = 1e-5
BATCH = 3
SIZES = [(56, 60), (56, 60), (SIDE, SIDE), (SIDE, SIDE), (20, 40), (20, 40)]
"""Averaged, copied, interpolated; each twice, so that it runs piece by piece and as a graph."""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fitted], bundles.Bundle]:
    """Gives each bundle, fitted when it is first asked for."""
    return functools.cache(lambda name: fit(name, tmp_path_factory.mktemp("fitted")))


def maps_of(bundle: bundles.Bundle) -> list[bundles.Bundle]:
    """The bundle with each of its kinds of map."""
    return [bundle.with_map(kind) for kind in facts(bundle).reconstruction.maps]


def facts(bundle: bundles.Bundle) -> ReconstructionManifest:
    assert isinstance(bundle.manifest, ReconstructionManifest)
    return bundle.manifest


def on_cpu(bundle: bundles.Bundle) -> ReconstructionScorer:
    return ReconstructionScorer(bundle.features, facts(bundle), backend="onnxruntime")


def on_gpu(bundle: bundles.Bundle, batch: int = 1) -> GpuScorer:
    return GpuScorer(Device(), ReconstructionScoring(facts(bundle)), emulated(bundle, batch), batch=batch)


def frames_of(bundle: bundles.Bundle, *sizes: tuple[int, int], seed: int = 100) -> list[np.ndarray]:
    colour = bundle.manifest.input.channels == 3
    return [image(seed + index, size, colour=colour) for index, size in enumerate(sizes)]


def assert_alike(scorer: GpuScorer, reference: ReconstructionScorer, *frames: np.ndarray) -> None:
    scores, maps = scorer.batch(frames)
    assert scores == [anomaly_map.max() for anomaly_map in maps]
    for anomaly_map, frame in zip(maps, frames, strict=True):
        expected_score, expected = reference(frame)
        # Where a sum of residuals is near 0, what rounding leaves of it counts against the largest error.
        np.testing.assert_allclose(anomaly_map, expected, rtol=TOLERANCE, atol=TOLERANCE * expected_score)


@pytest.mark.parametrize("integrated", [0, 1])
@pytest.mark.parametrize("name", FITTED)
def test_scores_and_maps_are_those_of_the_cpu(
    name: Fitted, integrated: int, fitted: Callable[[Fitted], bundles.Bundle], standin: StandIn
) -> None:
    of_each_kind = maps_of(fitted(name))
    assert len(of_each_kind) == (2 if "pca" in name else 4)
    for bundle in of_each_kind:
        standin.reset(integrated=integrated)
        with on_gpu(bundle) as scorer, on_cpu(bundle) as reference:
            for frame in frames_of(bundle, *SIZES):
                assert_alike(scorer, reference, frame)
            assert scorer.graph_refused is None
        assert standin.calls("cuGraphLaunch") == 3
        # Two kernels to a frame: launched by themselves, and captured.
        assert standin.calls("cuLaunchKernel") == 2 * 6


@pytest.mark.parametrize("name", FITTED)
def test_a_batch_scores_as_its_frames_do_on_the_cpu(
    name: Fitted, fitted: Callable[[Fitted], bundles.Bundle], standin: StandIn
) -> None:
    for bundle in maps_of(fitted(name)):
        with on_gpu(bundle, BATCH) as scorer, on_cpu(bundle) as reference:
            for turn, count in enumerate((3, 1, 3, 2, 1, 2, 3)):
                sizes = [(SIDE, SIDE), (56, 60), (56, 60)][:count]
                assert_alike(scorer, reference, *frames_of(bundle, *sizes, seed=10 * turn))


@pytest.mark.parametrize("kind", reconstructions.KINDS)
def test_the_rest_of_a_batch_does_not_matter(kind: str, tmp_path: Path, standin: StandIn) -> None:
    bundle = reconstructions.reconstruction_bundle(tmp_path / "made.flaw").with_map(kind)
    one, other = reconstructions.random_frames(2)
    with on_gpu(bundle, 2) as scorer:
        first = scorer(one)
        scorer.batch([other, other])
        again = scorer(one)
    assert again[0] == first[0]
    np.testing.assert_array_equal(again[1], first[1])


@pytest.mark.parametrize("kind", reconstructions.KINDS)
def test_frames_of_one_size_allocate_nothing_and_copy_pinned_memory_alone(
    kind: str, tmp_path: Path, standin: StandIn
) -> None:
    bundle = reconstructions.reconstruction_bundle(tmp_path / "made.flaw").with_map(kind)
    frames = reconstructions.random_frames(6)
    with on_gpu(bundle) as scorer:
        for frame in frames[:2]:
            scorer(frame)
        before = {name: standin.calls(name) for name in SLOW}
        launches = standin.calls("cuGraphLaunch")
        for frame in frames[2:]:
            scorer(frame)
        assert {name: standin.calls(name) for name in SLOW} == before
        assert standin.calls("cuGraphLaunch") == launches + 4


@pytest.mark.parametrize("kind", reconstructions.KINDS)
def test_memory_that_is_needed_is_what_is_taken_and_too_little_is_said_before(
    kind: str, tmp_path: Path, standin: StandIn
) -> None:
    bundle = reconstructions.reconstruction_bundle(tmp_path / "made.flaw").with_map(kind)
    needed = needed_bytes(ReconstructionScoring(facts(bundle)), BATCH)
    # Frames, maps and scores, which lie in pinned memory of the host as well.
    pinned = BATCH * (5 * bundle.manifest.positions + 4)
    with on_gpu(bundle, BATCH):
        taken = standin.live["bytes"] - pinned
    assert taken <= needed <= taken + 256 * standin.calls("cuMemAlloc")
    for batch, advice in ((BATCH, "use a smaller batch, or fit on smaller images"), (1, "fit on smaller images")):
        least = needed_bytes(ReconstructionScoring(facts(bundle)), batch)
        standin.reset(memory_bytes=least - 1)
        with pytest.raises(ResourceError) as caught:
            on_gpu(bundle, batch)
        assert str(caught.value) == (
            f"reconstructions of 24 x 20 px and a batch of {batch} need {least:,} bytes of GPU memory, and {least - 1:,} bytes "
            f"are free on stand-in for a GPU; {advice}"
        )
        assert standin.calls("cuMemAlloc") == 0


class NanEngine(EmulatedEngine):
    """Gives NaN in the middle of what it makes of the second frame, while it is told to."""

    broken = True

    def _run(self, _: object) -> None:
        super()._run(_)
        for address, output in zip(self.outputs, self._backend.outputs, strict=True):
            values = np.ctypeslib.as_array((ctypes.c_float * output.size).from_address(address)).reshape(
                len(output), -1
            )
            if self.broken:
                values[1, values.shape[1] // 2] = np.nan


@pytest.mark.parametrize("kind", reconstructions.KINDS)
def test_what_is_not_finite_is_an_error_and_the_next_frame_is_scored(
    kind: str, tmp_path: Path, standin: StandIn
) -> None:
    bundle = reconstructions.reconstruction_bundle(tmp_path / "made.flaw").with_map(kind)
    one, other = reconstructions.random_frames(2)
    engines: list[NanEngine] = []

    def open_engine(input_address: int, output_addresses: tuple[int, ...]) -> NanEngine:
        engines.append(NanEngine(bundle, 2, input_address, output_addresses))
        return engines[0]

    scoring = ReconstructionScoring(facts(bundle))
    with GpuScorer(Device(), scoring, open_engine, batch=2) as scorer, on_cpu(bundle) as reference:
        for _ in range(2):
            with pytest.raises(FlawlineError, match=r"the score is nan: .* for frame 1 of the batch"):
                scorer.batch([one, other])
        engines[0].broken = False
        assert_alike(scorer, reference, one, other)


def changed_calls(change: Callable[[Call], None]) -> Callable[..., Calls]:
    """Preparation of calls in whose jobs something is wrong."""
    right = ReconstructionScoring.prepare

    def prepare(self: ReconstructionScoring, memory: object, addresses: Addresses, batch: int) -> Calls:
        calls = right(self, memory, addresses, batch)  # type: ignore[arg-type]

        def wrong(count: int) -> tuple[Call, ...]:
            made = calls(count)
            for call in made:
                change(call)
            return made

        return wrong

    return prepare


def stride(array: str, axis: str) -> Callable[[Call], None]:
    def change(call: Call) -> None:
        call.job[f"{array}_strides"][axis] -= 1

    return change


def positions(call: Call) -> None:
    call.job["positions"] -= 1


def not_squared(call: Call) -> None:
    call.job["squared"] = 0


def frame_of_the_first_one(call: Call) -> None:
    call.job["reconstruction_strides"]["frame"] = 0


JOBS = {
    "rows of the image": ("pse", stride("image", "row")),
    "channels of the image": ("error", stride("image", "channel")),
    "frames of the image": ("pse", stride("image", "frame")),
    "rows of the reconstruction": ("error", stride("reconstruction", "row")),
    "channels of the reconstruction": ("pse", stride("reconstruction", "channel")),
    "one reconstruction for all": ("error", frame_of_the_first_one),
    "positions of a map": ("saliency", positions),
    "a saliency that is not squared": ("saliency-squared", not_squared),
}


@pytest.mark.parametrize("fault", JOBS)
def test_a_wrong_stride_is_found(
    fault: str, fitted: Callable[[Fitted], bundles.Bundle], standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, change = JOBS[fault]
    bundle = fitted("autoencoder colour").with_map(kind)
    monkeypatch.setattr(ReconstructionScoring, "prepare", changed_calls(change))
    with on_gpu(bundle, 2) as scorer, on_cpu(bundle) as reference, pytest.raises(AssertionError):
        assert_alike(scorer, reference, *frames_of(bundle, (SIDE, SIDE), (SIDE, SIDE)))


def kernels_before_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Program.__init__

    def made(self: Program, *arguments: object) -> None:
        right(self, *arguments)  # type: ignore[arg-type]
        self.resizing, self.scoring = [*self.resizing, *self.scoring], []

    monkeypatch.setattr(Program, "__init__", made)


def host_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Pipeline.run

    def run(self: Pipeline, *arguments: object) -> object:
        with monkeypatch.context() as planted:
            planted.setattr(Stream, "synchronize", lambda stream: None)
            return right(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "run", run)
    # Times of what has not run yet would tell as well.
    monkeypatch.setattr(Pipeline, "timings_ns", lambda self: {})


def scores_of_the_frame_before_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from flawline.runtime.gpu import pipeline

    monkeypatch.setattr(pipeline.cuda, "memset_d32_async", lambda *_: None)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("pse", kernels_before_the_network),
        ("saliency", kernels_before_the_network),
        ("pse", host_waits_for_nothing),
        ("saliency", host_waits_for_nothing),
        # The error's kernel writes scores, and raises none.
        ("saliency", scores_of_the_frame_before_stay),
    ],
)
def test_a_missing_wait_is_found(
    kind: str,
    fault: Callable[[pytest.MonkeyPatch], None],
    fitted: Callable[[Fitted], bundles.Bundle],
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = fitted("autoencoder grey").with_map(kind)
    fault(monkeypatch)
    flawed, good = frames_of(bundle, (SIDE, SIDE), (SIDE, SIDE))
    flawed[5:15, 8:20] = 255

    def score(scorer: GpuScorer, reference: ReconstructionScorer) -> None:
        # What the frame before has left is of the right form, and of another frame.
        for frame in (flawed, good, flawed, good):
            assert_alike(scorer, reference, frame)

    with on_gpu(bundle) as scorer, on_cpu(bundle) as reference, pytest.raises((AssertionError, FlawlineError)):
        score(scorer, reference)
