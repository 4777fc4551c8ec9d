"""The whole command with a peer of our own making, and what it writes."""

import argparse
import json
import shlex
import sys

import pytest

from flawline.__main__ import main
from flawline.benchmarks.commands import bench_peers
from flawline.benchmarks.peers.cases import Case
from flawline.benchmarks.peers.record import argv
from flawline.benchmarks.peers.theirs import About, Theirs
from flawline.runtime.bundle import read

MEAN = (
    "import sys; from flawline.benchmarks.peers.workers.serving import serve\n"
    "sys.exit(serve(lambda task: lambda frame: (float(frame.mean()), False)))"
)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_peers.add_arguments(parser)
    return parser.parse_args([*words])


@pytest.fixture(scope="module")
def run(colour_bundle, tiny_dataset, tmp_path_factory):
    """What the command wrote of our bundle beside a peer that takes the mean of a frame."""
    folder = tmp_path_factory.mktemp("record")
    (folder / "weights.npz").write_bytes(b"")
    peer = Case("mean", "python", "fp32", (), (sys.executable, "-c", MEAN), 1000)
    words = ["bench", "peers", "--test", str(tiny_dataset), "--weights", str(folder / "weights.npz")]
    words += ["--bundle", str(colour_bundle), "--test-images", "5", "--threads", "1", "--runs", "15"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_peers, "install", lambda *words, **options: ({}, []))
        theirs = Theirs([peer], [], {"mean": About("MIT", {"mean": "1.0"}, [])})
        patch.setattr(bench_peers, "fit_theirs", lambda *words, **options: theirs)
        assert main([*words, "--json", str(folder / "peers.json")]) == 0
    return json.loads((folder / "peers.json").read_text())


def test_a_case_tells_its_precision_its_factors_and_its_bytes(run, colour_bundle):
    ours, peer, null = run["results"]["cases"]
    assert (ours["name"], ours["precision"], ours["factors"]) == (
        "flawline onnxruntime fp32, fp16 factors",
        "fp32",
        "fp16",
    )
    assert ours["deployed_bytes"] == read(colour_bundle).total_bytes
    assert (peer["name"], peer["factors"], null["name"]) == ("mean python fp32", None, "null")
    (ratio,) = run["results"]["ratios"]
    assert ratio["p50"] == peer["latency"]["p50_ns"] / ours["latency"]["p50_ns"]
    assert ratio["unstable"], "15 runs are few"


def test_the_record_tells_who_took_part_and_what_was_scored(run):
    settings = run["settings"]
    assert settings["peers"] == {"mean": {"licence": "MIT", "versions": {"mean": "1.0"}, "notes": []}}
    assert (settings["most_test_images"], settings["frames"]) == (5, 5)
    assert {one["frames"] for one in run["results"]["cases"]} == {5}


def test_the_words_that_were_recorded_repeat_the_run(run, tiny_dataset, colour_bundle):
    words = run["settings"]["argv"]
    assert words[:3] == ["flawline", "bench", "peers"]
    assert not any("/" in word for word in words), "paths say where somebody keeps things"
    assert argv(parsed(*words[3:])) == words
    assert {tiny_dataset.name, colour_bundle.name, "weights.npz"} < set(words)


def test_defaults_are_spelled_out():
    words = shlex.join(argv(parsed("--test", "elpv-mono", "--weights", "/models/resnet18.pth", "--precisions", "int8")))
    assert words.startswith("flawline bench peers --test elpv-mono --weights resnet18.pth --dim 100 --fit-images 300 ")
    assert "--threads 1,2 --runs 300 --precisions int8@onnxruntime --factors fp16 --peers anomalib,anomavision" in words
    assert "--test-images" not in words
