"""The whole frame on the stand-in driver: scores and maps are those of the CPU."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flawline.runtime import DeviceError, FlawlineError, InputError, ResourceError
from flawline.runtime import bundle as bundles
from flawline.runtime.bundle.contents import gaussians
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.padim import PadimScoring
from flawline.runtime.gpu.pipeline import CAPTURE_ATTEMPTS, MOST_PROGRAMS, STAGES
from flawline.runtime.gpu.room import needed_bytes
from flawline.runtime.gpu.scorer import GpuScorer
from flawline.runtime.kernels import Gaussians, pack
from flawline.runtime.scorer import Scorer
from tests.emulation.standin import StandIn
from tests.runtime.gpu.conftest import EmulatedEngine, emulated

Frames = Callable[..., list[np.ndarray]]
SHAPE = (96, 128)
TOLERANCE = 1e-5
SLOW = (
    "cuMemAlloc",
    "cuMemHostAlloc",
    "cuStreamCreate",
    "cuEventCreate",
    "cuModuleLoadDataEx",
    "cuGraphInstantiate",
    "copies of pageable memory",
)


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> bundles.Bundle:
    return bundles.read(tiny_bundle)


@pytest.fixture(scope="module", params=["grey", "colour"])
def bundle(request: pytest.FixtureRequest) -> bundles.Bundle:
    """Bundles that were fitted: of one channel and a Gaussian per position, and of three in planes, tied, with components."""
    return bundles.read(request.getfixturevalue({"grey": "tiny_bundle", "colour": "colour_bundle"}[request.param]))


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_network: Path) -> Path:
    from flawline.calibration.statistics import StatisticsOptions
    from flawline.export.fit import FitOptions, fit_bundle
    from flawline.runtime.images import list_images, write_image

    folder = tmp_path_factory.mktemp("colour")
    generator = np.random.default_rng(0)
    for index in range(24):
        write_image(folder / f"{index:02}.png", generator.integers(90, 160, (80, 70, 3), np.uint8))
    options = FitOptions(
        backbone=str(tiny_network),
        layers=("fine", "coarse"),
        image_size=64,
        dimension=6,
        layout="nchw",
        statistics=StatisticsOptions(tie="column", components=2, factors="int8"),
        threads=1,
        smoothing_px=4.0,
    )
    out = tmp_path_factory.mktemp("bundle") / "colour.flaw"
    fit_bundle(list_images(folder), out, options)
    return out


def on_cpu(bundle: bundles.Bundle, batch: int = 1) -> Scorer:
    statistics = gaussians(bundle.manifest, bundle.statistics)
    return Scorer(bundle.features, bundle.manifest, statistics, backend="onnxruntime", batch=batch)


def on_gpu(bundle: bundles.Bundle, batch: int = 1) -> GpuScorer:
    return GpuScorer(Device(), scoring(bundle), emulated(bundle, batch), batch=batch)


def scoring(bundle: bundles.Bundle, statistics: Gaussians | None = None) -> PadimScoring:
    manifest, found = bundle.padim, statistics or gaussians(bundle.padim, bundle.statistics)
    projection = msgspec.structs.replace(manifest.projection, dimension=found.dimension)
    return PadimScoring(msgspec.structs.replace(manifest, projection=projection), found)


def shaped(bundle: bundles.Bundle, *sizes: tuple[int, int]) -> list[tuple[int, ...]]:
    channels = bundle.manifest.input.channels
    return [size if channels == 1 else (*size, channels) for size in sizes]


def assert_alike(
    received: tuple[list[float], np.ndarray], expected: tuple[list[float], np.ndarray], tolerance: float = TOLERANCE
) -> None:
    np.testing.assert_allclose(received[0], expected[0], rtol=tolerance)
    np.testing.assert_allclose(received[1], expected[1], rtol=tolerance)


@pytest.mark.parametrize("integrated", [0, 1])
def test_scores_and_maps_are_those_of_the_cpu(
    integrated: int, bundle: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    standin.reset(integrated=integrated)
    # Averaged, copied, interpolated, and each twice, so that it runs piece by piece and as a graph.
    images = frames(*shaped(bundle, SHAPE, SHAPE, (64, 64), (64, 64), (40, 90), (40, 90), SHAPE))
    with on_gpu(bundle) as scorer, on_cpu(bundle) as reference:
        for image in images:
            assert_alike(scorer.batch([image]), reference.batch([image]))
        assert scorer.graph_refused is None
    assert standin.calls("cuGraphLaunch") == 4
    # Scores are copied even where memory is shared; once for each size piece by piece, once for its graph.
    assert standin.calls("cuMemcpyDtoHAsync") == (1 if integrated else 2) * 6


@pytest.mark.parametrize("counts", [(3, 3, 3), (1, 2, 3, 1, 2, 3)])
def test_a_batch_scores_as_its_frames_do_on_the_cpu(
    counts: tuple[int, ...], bundle: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    with on_gpu(bundle, 3) as scorer, on_cpu(bundle) as reference:
        for count in counts:
            images = frames(*shaped(bundle, *[SHAPE, (70, 66), (70, 66)][:count]))
            alone = [reference(image) for image in images]
            expected = [score for score, _ in alone], np.stack([anomaly_map for _, anomaly_map in alone])
            assert_alike(scorer.batch(images), expected, tolerance=1e-4)


def test_results_outlive_the_next_frame(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    first, second = frames(SHAPE, SHAPE)
    with on_gpu(tiny) as scorer:
        _, kept = scorer(first)
        before = kept.copy()
        scorer(second)
        np.testing.assert_array_equal(kept, before)


def test_stages_are_timed_with_the_graph_and_without(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    (image,) = frames(SHAPE)
    with on_gpu(tiny) as scorer:
        for _ in range(3):
            scorer.timings_ns.update(dict.fromkeys(STAGES, -1))
            scorer(image)
            assert min(scorer.timings_ns.values()) >= 0
            assert scorer.timings_ns["network"] > 0
    assert list(scorer.timings_ns) == list(STAGES)


def test_frames_of_one_size_allocate_nothing_and_copy_pinned_memory_alone(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    images = frames(*[SHAPE] * 6)
    with on_gpu(tiny) as scorer:
        for image in images[:2]:
            scorer(image)
        before = {name: standin.calls(name) for name in SLOW}
        launches = standin.calls("cuGraphLaunch")
        for image in images[2:]:
            scorer(image)
        assert {name: standin.calls(name) for name in SLOW} == before
        assert standin.calls("cuGraphLaunch") == launches + 4


def test_larger_frames_than_the_good_images_get_memory_once(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    small, large, larger = frames(SHAPE, (200, 300), (300, 400))
    with on_gpu(tiny) as scorer, on_cpu(tiny) as reference:
        for image in (small, large, larger, small, large, larger):
            assert_alike(scorer.batch([image]), reference.batch([image]))
        taken = standin.calls("cuMemHostAlloc")
        for image in (larger, large, small):
            scorer(image)
        assert standin.calls("cuMemHostAlloc") == taken


def test_a_frame_that_there_is_no_memory_for_is_refused_and_the_next_is_scored(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    large, usual = frames((4 * SHAPE[0], 4 * SHAPE[1]), SHAPE)
    with on_gpu(tiny) as scorer:
        expected = scorer.batch([usual])
        standin.reset(fail="cuMemAlloc@1=2+")
        with pytest.raises(ResourceError, match="MB of GPU memory cannot be had"):
            scorer(large)
        standin.reset()
        assert_alike(scorer.batch([usual]), expected)


def test_frames_of_many_sizes_do_not_fill_the_memory(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    with on_gpu(tiny) as scorer:
        live = []
        for shortest in (20, 40):
            for side in range(shortest, shortest + MOST_PROGRAMS):
                scorer(frames((side, 30))[0])
            live.append(standin.live["allocations"])
    assert live[0] == live[1]


@pytest.mark.parametrize("name", ["cuStreamBeginCapture", "cuGraphInstantiate"])
def test_a_driver_without_graphs_is_worked_with_piece_by_piece(
    name: str, tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    standin.reset(fail=f"{name}@1=801+")
    (image,) = frames(SHAPE)
    with on_gpu(tiny) as scorer, on_cpu(tiny) as reference:
        for _ in range(CAPTURE_ATTEMPTS + 2):
            assert_alike(scorer.batch([image]), reference.batch([image]))
        assert "operation not supported" in (scorer.graph_refused or "")
    assert standin.calls("cuStreamBeginCapture") == CAPTURE_ATTEMPTS
    assert standin.calls("cuGraphLaunch") == 0


def test_a_capture_that_was_spoilt_is_tried_again(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    standin.reset(fail=",".join(f"cuStreamEndCapture@{number}=901" for number in range(1, CAPTURE_ATTEMPTS)))
    (image,) = frames(SHAPE)
    with on_gpu(tiny) as scorer, on_cpu(tiny) as reference:
        for _ in range(CAPTURE_ATTEMPTS + 2):
            assert_alike(scorer.batch([image]), reference.batch([image]))
        assert scorer.graph_refused is None
    assert standin.calls("cuGraphLaunch") == 2


def test_an_engine_that_cannot_be_captured_is_launched_piece_by_piece(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmulatedEngine, "capturable", False)
    (image,) = frames(SHAPE)
    with on_gpu(tiny) as scorer:
        scores = [scorer(image)[0] for _ in range(3)]
        assert scorer.graph_refused == "emulated cannot be captured"
    assert len(set(scores)) == 1
    assert standin.calls("cuStreamBeginCapture") == 0


def test_the_rest_of_a_batch_does_not_matter(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    image, other = frames(SHAPE, SHAPE)
    with on_gpu(tiny, 2) as scorer:
        first = scorer(image)
        scorer.batch([other, other])
        again = scorer(image)
    assert again[0] == first[0]
    np.testing.assert_array_equal(again[1], first[1])


def test_two_threads_score_with_a_scorer_each(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    images = frames(*[SHAPE] * 8)
    with on_cpu(tiny) as reference:
        expected = [reference(image)[0] for image in images]
    received: dict[int, list[float]] = {}

    def work(number: int) -> None:
        with on_gpu(tiny) as scorer:
            received[number] = [scorer(image)[0] for image in images]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(received) == 2
    for scores in received.values():
        np.testing.assert_allclose(scores, expected, rtol=TOLERANCE)


def test_a_scorer_moves_from_thread_to_thread(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    (image,) = frames(SHAPE)
    scorer = on_gpu(tiny)
    scores = [scorer(image)[0]]

    def work() -> None:
        scores.extend(scorer(image)[0] for _ in range(2))
        scorer.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(set(scores)) == 1


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((32, 32, 3), np.uint8), r"frame is uint8 \(32, 32, 3\); this bundle takes uint8 \(height, width\)"),
        (np.zeros((32, 32), np.float32), r"frame is float32 \(32, 32\)"),
        (np.zeros((8, 32), np.uint8), "16"),
        (np.zeros((64, 100_000), np.uint8), "cut it into narrower tiles"),
    ],
)
def test_a_wrong_frame_is_refused_and_the_next_is_scored(
    frame: np.ndarray, words: str, tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    (image,) = frames(SHAPE)
    with on_gpu(tiny) as scorer:
        with pytest.raises(InputError, match=words):
            scorer(frame)
        scorer(image)


def test_too_many_frames_are_refused(tiny: bundles.Bundle, frames: Frames, standin: StandIn) -> None:
    with on_gpu(tiny, 2) as scorer, pytest.raises(InputError, match="3 frames at once; expected 1 to 2"):
        scorer.batch(frames(SHAPE, SHAPE, SHAPE))
    with pytest.raises(InputError, match="batch is 0"):
        on_gpu(tiny, 0)


def test_features_that_are_not_finite_are_an_error_and_the_next_frame_is_scored(
    make_bundle: Callable[..., bundles.Bundle], graph: Callable[..., bytes], tmp_path: Path, standin: StandIn
) -> None:
    side = 16
    bundle = make_bundle(tmp_path / "log.flaw", features=graph(side, side, "Log"), size=side, golden=())
    bright, dark = np.full((side, side), 50, np.uint8), np.zeros((side, side), np.uint8)
    with on_gpu(bundle, 2) as scorer:
        for _ in range(2):
            with pytest.raises(FlawlineError, match="for frame 1 of the batch"):
                scorer.batch([bright, dark])
        assert np.isfinite(scorer(bright)[0])


def test_closing_twice_does_nothing_and_what_is_closed_says_so(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    scorer = on_gpu(tiny)
    scorer.close()
    scorer.close()
    with pytest.raises(FlawlineError, match="the detector is closed; open the bundle again"):
        scorer(frames(SHAPE)[0])


def test_memory_that_is_needed_is_what_is_taken(tiny: bundles.Bundle, standin: StandIn) -> None:
    needed = needed_bytes(scoring(tiny), 3)
    # What lies in pinned memory of the host, and again on the GPU.
    pinned = 3 * (SHAPE[0] * SHAPE[1] + 4 * tiny.manifest.positions + 4)
    with on_gpu(tiny, 3):
        taken = standin.live["bytes"] - pinned
    assert taken <= needed <= 1.02 * taken + 256 * standin.calls("cuMemAlloc")


def test_too_little_memory_is_said_before_any_is_taken_with_the_dimension_that_fits(
    tiny: bundles.Bundle, standin: StandIn
) -> None:
    statistics = gaussians(tiny.manifest, tiny.statistics)
    needed = needed_bytes(scoring(tiny, statistics), 1)
    standin.reset(memory_bytes=needed - 1)
    with pytest.raises(ResourceError) as caught:
        on_gpu(tiny)
    message = str(caught.value)
    assert f"need {needed:,} bytes of GPU memory, and {needed - 1:,} bytes are free on stand-in for a GPU" in message
    assert f"fit with --dim {statistics.dimension - 1} or less" in message
    assert standin.calls("cuMemAlloc") == 0
    # And with that dimension it does.
    smaller = random_gaussians(statistics, statistics.dimension - 1)
    assert needed_bytes(scoring(tiny, smaller), 1) <= needed - 1
    standin.reset(memory_bytes=1000)
    with pytest.raises(ResourceError, match="no dimension fits: use a smaller batch"):
        on_gpu(tiny)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.99])
def test_the_dimension_that_fits_is_the_largest_that_does(share: float, tiny: bundles.Bundle, standin: StandIn) -> None:
    statistics = random_gaussians(gaussians(tiny.manifest, tiny.statistics), 100)
    free = int(share * needed_bytes(scoring(tiny, statistics), 1))
    standin.reset(memory_bytes=free)
    with pytest.raises(ResourceError) as caught:
        GpuScorer(Device(), scoring(tiny, statistics), emulated(tiny))
    (dimension,) = (int(digits) for digits in re.findall(r"fit with --dim (\d+) or less", str(caught.value)))
    fits, more = (needed_bytes(scoring(tiny, random_gaussians(statistics, d)), 1) for d in (dimension, dimension + 1))
    # Up to what allocations are rounded up by.
    assert fits <= free < more + 256 * 8


def random_gaussians(like: Gaussians, dimension: int) -> Gaussians:
    factors = pack(
        np.broadcast_to(np.eye(dimension, dtype=np.float32), (like.count, 1, dimension, dimension)), np.float16
    )
    means = np.zeros((like.count, 1, dimension), np.float32)
    return Gaussians(means, factors, np.ones((like.count, 1), np.float32), like.assignment)


def count_of(name: str, tiny: bundles.Bundle, standin: StandIn) -> int:
    standin.reset()
    on_gpu(tiny).close()
    return standin.calls(name)


def test_memory_that_cannot_be_had_at_any_point_leaves_nothing(tiny: bundles.Bundle, standin: StandIn) -> None:
    for name, words in (
        ("cuMemAlloc", "of GPU memory cannot be had"),
        ("cuMemHostAlloc", "of pinned memory cannot be had"),
    ):
        for number in range(1, count_of(name, tiny, standin) + 1):
            # PyCUDA asks once more.
            standin.reset(fail=f"{name}@{number}=2+")
            with pytest.raises(ResourceError, match=words):
                on_gpu(tiny)
            assert standin.live["allocations"] == 0


def test_an_engine_that_cannot_be_had_leaves_nothing(tiny: bundles.Bundle, standin: StandIn) -> None:
    def refuse(input_address: int, output_addresses: tuple[int, ...]) -> EmulatedEngine:
        raise FlawlineError("the engine is for another GPU")

    with pytest.raises(FlawlineError, match="the engine is for another GPU"):
        GpuScorer(Device(), scoring(tiny), refuse)
    assert standin.live["allocations"] == 0


def test_a_driver_older_than_the_kernels_says_what_to_do(tiny: bundles.Bundle, standin: StandIn) -> None:
    standin.reset(driver_version=12060, image_version=13000)
    with pytest.raises(
        DeviceError, match=r"the driver, which supports CUDA 12\.6, refuses the kernels .*update the driver"
    ):
        on_gpu(tiny)


@pytest.mark.parametrize(
    ("log", "words"),
    [("ptxas fatal", "ptxas fatal"), ("ptxas \udcdb fatal", "ptxas \ufffd fatal"), ("x" * 40_000, "xxx")],
    ids=["text", "bytes that are no text", "more than there is room for"],
)
def test_what_the_driver_logs_of_kernels_that_it_refuses_is_told(
    log: str, words: str, tiny: bundles.Bundle, standin: StandIn
) -> None:
    standin.reset(driver_version=12060, image_version=13000, log=log)
    with pytest.raises(DeviceError, match=f"refuses the kernels .*{words}.*update the driver"):
        on_gpu(tiny)


def test_kernels_that_lack_one_are_refused_at_the_start(
    tiny: bundles.Bundle, standin: StandIn, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.reset(fail="cuModuleGetFunction@2=500")
    with on_gpu(tiny) as scorer, pytest.raises(DeviceError, match="the image of the kernels lacks"):
        scorer(frames(SHAPE)[0])


FAULTS = {
    "a launch that is refused": "cuLaunchKernel@2=701",
    "a copy that is refused": "cuMemcpyHtoDAsync@1=1",
    "an event that is refused": "cuEventRecordWithFlags@4=400",
    "a kernel that fails": "kernel@2=719!",
    "a wait that fails": "cuStreamSynchronize@1=700!",
    "a GPU that is lost between frames": "cuCtxPushCurrent@1=46!",
    "a GPU that is lost as the context is left": "cuCtxPopCurrent@1=46!",
}


LOST = "it is lost to this process: end the process and start it again"


def assert_closed_by_a_frame(scorer: GpuScorer, image: np.ndarray, advice: str) -> None:
    with pytest.raises(DeviceError, match=f"^the GPU failed on a frame: .*; {advice}$"):
        scorer(image)
    again = f"GPU 0 has failed; {LOST}" if advice == LOST else "the detector is closed; open the bundle again"
    with pytest.raises(FlawlineError, match=f"^{again}$"):
        scorer(image)
    scorer.close()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("frames_before", [0, 2])
def test_a_gpu_that_fails_on_a_frame_closes_the_scorer(
    frames_before: int,
    fault: str,
    tiny: bundles.Bundle,
    frames: Frames,
    standin: StandIn,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (image,) = frames(SHAPE)
    scorer = on_gpu(tiny)
    for _ in range(frames_before):
        scorer(image)
    if frames_before and not fault.endswith("!"):
        fault = "cuGraphLaunch@1=701"
    standin.reset(fail=fault)
    lost = fault.endswith("!")
    assert_closed_by_a_frame(scorer, image, LOST if lost else "the detector is closed: open the bundle again")
    complaints = capfd.readouterr().err
    if lost:
        with pytest.raises(DeviceError, match=f"^GPU 0 has failed; {LOST}$"):
            on_gpu(tiny)
        # PyCUDA says that the context could not be given back, and not again for each of the dozens of things in it.
        assert complaints.count("PyCUDA WARNING") <= 2
        standin.restart()
    else:
        assert complaints == ""


@pytest.mark.parametrize(
    ("call", "doing"),
    [
        ("cuMemAlloc@3", "the GPU failed while it was set up"),
        ("cuMemcpyHtoDAsync@2", "the GPU failed while it was set up"),
        ("cuStreamSynchronize@1", "the GPU failed while it was set up"),
        ("cuModuleLoadDataEx@1", "the kernels cannot be loaded"),
    ],
)
def test_a_gpu_that_is_lost_while_it_is_set_up_says_so_and_little_else(
    call: str, doing: str, tiny: bundles.Bundle, standin: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    standin.reset(fail=f"{call}=719")
    with pytest.raises(DeviceError, match=f"^{doing}: {call.partition('@')[0]} failed: .*; {LOST}$"):
        on_gpu(tiny)
    assert capfd.readouterr().err.count("PyCUDA WARNING") <= 2
    standin.restart()


def test_a_gpu_that_is_lost_as_larger_frames_come_says_so_and_little_else(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    scorer = on_gpu(tiny)
    standin.reset(fail="cuMemcpyHtoDAsync@1=719")
    assert_closed_by_a_frame(scorer, frames((2 * SHAPE[0], 2 * SHAPE[1]))[0], LOST)
    assert capfd.readouterr().err.count("PyCUDA WARNING") <= 2
    standin.restart()


def test_what_an_engine_does_when_it_is_opened_is_over_before_the_first_frame(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    order: list[str] = []

    class WarmedUp(EmulatedEngine):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.enqueue(0)
            order.append("opened")

        def _run(self, _: object) -> None:
            super()._run(_)
            order.append("run")

    with GpuScorer(Device(), scoring(tiny), lambda *addresses: WarmedUp(tiny, 1, *addresses)) as scorer:
        assert order == ["opened", "run"]
        scorer(frames(SHAPE)[0])
        assert order == ["opened", "run", "run"]


def test_an_engine_that_fails_on_a_frame_closes_the_scorer(
    tiny: bundles.Bundle, frames: Frames, standin: StandIn
) -> None:
    engines: list[EmulatedEngine] = []

    def open_engine(input_address: int, output_addresses: tuple[int, ...]) -> EmulatedEngine:
        engines.append(EmulatedEngine(tiny, 1, input_address, output_addresses))
        return engines[0]

    (image,) = frames(SHAPE)
    scorer = GpuScorer(Device(), scoring(tiny), open_engine)
    scorer(image)
    engines[0].problem = FlawlineError("TensorRT failed on a frame: out of workspace")
    with pytest.raises(DeviceError, match="out of workspace; the detector is closed: open the bundle again"):
        scorer(image)
