"""Cases in alternation, with real workers; ratios and tables of what they measured."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flawline import __version__
from flawline.benchmarks.datasets import Item
from flawline.benchmarks.environment import describe
from flawline.benchmarks.metrics import image_auroc
from flawline.benchmarks.peers import text
from flawline.benchmarks.peers.cases import Case, Failure, null_case, our_cases
from flawline.benchmarks.peers.comparison import Measured, Settings, compare
from flawline.benchmarks.peers.frames import thinned, write_frames
from flawline.benchmarks.peers.ratios import fastest, ratios
from flawline.benchmarks.peers.theirs import About
from flawline.benchmarks.timing import Timing
from flawline.runtime import Detector
from flawline.runtime.errors import InputError
from flawline.runtime.images import list_images, read_image

QUICK = Settings(runs=4, frames_per_turn=2, settle_s=0.0, warmup_turns=1)


def case(name: str, **changes) -> Case:
    party, engine, precision = name.split()
    return replace(Case(party, engine, precision, (), (), 10_000_000), **changes)


def measured(name: str, *, p50_ms: float, threads: int = 1, distinct: int = 10, runs: int = 20, **changes) -> Measured:
    latency = Timing.of([int(p50_ms * 1e6)] * runs)
    return Measured(case(name, **changes), threads, latency, latency.p50_ns, 100_000_000, 0.9, distinct, 0, 3, 10)


def script(party: str, code: str) -> Case:
    served = (
        "import sys; from flawline.benchmarks.peers.workers.serving import serve\n"
        f"score = {code}\n"
        "sys.exit(serve(lambda task: score))"
    )
    return Case(party, "python", "fp32", (), (sys.executable, "-c", served), 1000)


@pytest.fixture(scope="module")
def run(frames, colour_bundle, tmp_path_factory):
    ours, _ = our_cases([colour_bundle], [("fp32", "onnxruntime")])
    cases = [
        *ours,
        script("mean", "lambda frame: (frame.mean(), False)"),
        script("constant", "lambda frame: (1.0, True)"),
        script("nan", "lambda frame: (float('nan'), False)"),
        script("broken", "lambda frame: 1 / 0"),
        script("absent", "__import__('no_such_package')"),
        null_case(),
    ]
    return compare(cases, frames, QUICK, thread_counts=[1], folder=tmp_path_factory.mktemp("run"))


def test_every_case_is_measured_or_named_with_its_reason(run):
    found, failures = run
    assert [one.case.party for one in found] == ["flawline", "mean", "constant", "nan", "null"]
    assert [one.name for one in failures] == ["absent python fp32, threads 1", "broken python fp32, threads 1"]
    assert "No module named 'no_such_package'" in failures[0].reason
    assert "ZeroDivisionError" in failures[1].reason
    assert all(one.latency.runs == 4 for one in found)


def test_accuracy_is_that_of_the_scores(run, frames, colour_bundle):
    found = {one.case.party: one for one in run[0]}
    images = [*list_images(frames.good), *list_images(frames.defective)]
    with Detector.open(colour_bundle) as detector:
        scores = np.array([detector(read_image(path)).score for path in images])
    assert found["flawline"].image_auroc == image_auroc(frames.defects, scores)
    assert found["constant"].image_auroc == 0.5
    assert found["nan"].image_auroc is None


def test_a_score_that_says_nothing_is_seen(run):
    found = {one.case.party: one for one in run[0]}
    assert (found["constant"].distinct_scores, found["constant"].rejected) == (1, 10)
    assert (found["nan"].distinct_scores, found["nan"].not_finite) == (0, 10)
    assert found["mean"].distinct_scores == 10


def test_the_table_has_every_case_and_says_what_is_wrong(run, frames):
    found, failures = run
    printed = "\n".join(text.lines(found, ratios(found), failures, frames))
    assert "6 good frames of 64 x 64 px fitted, 10 scored, 4 of them defective" in printed
    assert "1 of 10 CONSTANT" in printed
    assert "10 NOT FINITE" in printed
    assert "null case" in printed
    assert "not measured\n  absent python fp32, threads 1: " in printed
    assert "flawline onnxruntime fp32, fp16 factors, threads: 1; above 1 the peer takes more" in printed


def test_spinning_after_the_work_counts_as_processor_time(frames, tmp_path):
    spin = (
        "import sys, threading, time; from flawline.benchmarks.peers.workers.serving import serve\n"
        "def spin():\n"
        "    end = time.perf_counter() + 0.05\n"
        "    while time.perf_counter() < end: pass\n"
        "def score(frame):\n"
        "    threading.Thread(target=spin).start()\n"
        "    return 0.0, False\n"
        "sys.exit(serve(lambda task: score))"
    )
    spinning = Case("spin", "python", "fp32", (), (sys.executable, "-c", spin), 1)
    settings = replace(QUICK, frames_per_turn=1, untimed=0, settle_s=0.3)
    (one, null), _ = compare([spinning, null_case()], frames, settings, thread_counts=[1], folder=tmp_path)
    assert one.cpu_ns > 10e6 > null.cpu_ns


def test_a_ratio_is_peer_over_ours_with_the_same_threads():
    ours = measured("flawline onnxruntime fp32", p50_ms=10, deployed_bytes=4_000_000)
    peer = measured("anomalib openvino f32", p50_ms=25, deployed_bytes=10_000_000)
    other = measured("anomalib openvino f32", p50_ms=50, threads=2)
    (only,) = ratios([ours, peer, other, measured("null - -", p50_ms=1)])
    assert (only.ours, only.peer, only.threads) == ("flawline onnxruntime fp32", "anomalib openvino f32", 1)
    assert (only.p50, only.p99, only.cpu, only.memory, only.files) == (2.5, 2.5, 2.5, 1.0, 2.5)
    assert only.peer_is_float


def test_the_fastest_peer_is_found_among_floats_and_among_all():
    found = ratios(
        [
            measured("flawline onnxruntime fp32", p50_ms=10),
            measured("a onnxruntime fp32", p50_ms=30),
            measured("b openvino f32", p50_ms=25),
            measured("a openvino bf16", p50_ms=15),
            measured("b onnxruntime int8", p50_ms=5, distinct=1),
        ]
    )
    assert fastest(found, only_float=True).peer == "b openvino f32"
    best = fastest(found, only_float=False)
    assert (best.peer, best.peer_is_constant, best.p50) == ("b onnxruntime int8", True, 0.5)
    assert fastest([], only_float=False) is None
    assert fastest([one for one in found if not one.peer_is_float], only_float=True) is None


def test_timings_that_may_be_unstable_are_marked_wherever_they_stand(frames):
    shaky = measured("a onnxruntime fp32", p50_ms=30, runs=19)
    found = [measured("flawline onnxruntime fp32", p50_ms=10), shaky, measured("b openvino f32", p50_ms=25)]
    printed = "\n".join(text.lines(found, ratios(found), [], frames))
    marked = [line.split("  ")[0] for line in printed.splitlines() if "*" in line]
    assert marked == [
        "a onnxruntime fp32 *",
        "* a onnxruntime fp32 may be unstable: only 19 runs",
        "a onnxruntime fp32 *",
    ]
    every = ratios([replace(found[0], latency=shaky.latency), *found[1:]])
    assert [one.unstable for one in (*ratios(found), *every)] == [True, False, True, True]
    printed = "\n".join(text.lines(found[:2], ratios(found[:2]), [], frames))
    assert "fastest peer fp32: 3.00 times our p50 (a onnxruntime fp32 *)" in printed


def test_each_party_is_told_with_its_own_libraries():
    about = {"a": About("MIT", {"a": "3.1", "openvino": "2025.4"}, ["declared operators of torchvision: nms"])}
    ours, theirs, note = text.parties(describe(), about)
    assert ours.startswith(f"flawline: flawline {__version__}, numpy {np.__version__}, ")
    assert theirs == "a (MIT): a 3.1, openvino 2025.4"
    assert note == "  declared operators of torchvision: nms"


def items(**kinds: int) -> list[Item]:
    return [Item(Path(f"{kind}-{index:03}.png"), kind) for kind, count in kinds.items() for index in range(count)]


def test_fewer_labelled_images_are_drawn_in_the_share_of_each_kind_and_all_over_it():
    kept = thinned(items(good=120, scratch=60, dent=20), 20)
    assert Counter(item.kind for item in kept) == {"good": 12, "scratch": 6, "dent": 2}
    good = [int(item.path.stem[-3:]) for item in kept if item.kind == "good"]
    assert good == list(range(5, 120, 10))


def test_kinds_that_interleave_are_told_apart():
    test = [Item(Path(f"{index}.png"), "good" if index % 2 else "dent") for index in range(40)]
    assert Counter(item.kind for item in thinned(test, 10)) == {"good": 5, "dent": 5}


def test_more_images_than_there_are_is_all_of_them():
    test = items(good=3, dent=2)
    assert sorted(thinned(test, 9), key=test.index) == test


def test_no_case_at_all_is_no_error(frames, tmp_path):
    found, failures = compare([script("absent", "1 / 0")], frames, QUICK, thread_counts=[1], folder=tmp_path)
    assert found == []
    assert [one.name for one in failures] == ["absent python fp32, threads 1"]
    printed = list(text.lines(found, [], [*failures, Failure("peer", "no network")], frames))
    assert printed[-1] == "  peer: no network"


def test_labels_of_one_kind_are_refused(good_images, tmp_path):
    images = list_images(good_images)
    with pytest.raises(InputError, match="all 2 labelled images are good; expected both kinds"):
        write_frames(images[:3], [Item(path, "good") for path in images[3:5]], tmp_path, (64, 64))
    with pytest.raises(InputError, match="no good images to fit on"):
        write_frames([], [], tmp_path, (64, 64))


def test_without_labels_the_fitted_frames_are_scored(good_images, tmp_path):
    frames = write_frames(list_images(good_images)[:3], [], tmp_path / "frames", (32, 48))
    assert (frames.count, frames.defects, frames.good, frames.defective) == (3, None, None, None)
    assert frames.raw.stat().st_size == 3 * 32 * 48 * 3
    (one,), _ = compare([null_case()], frames, QUICK, thread_counts=[1], folder=tmp_path)
    assert one.image_auroc is None
