"""The command without its peers: what it refuses, and environments that cannot be made."""

import json
import sys
from pathlib import Path

import pytest

from flawline.__main__ import main
from flawline.benchmarks.peers import environments
from flawline.benchmarks.peers.cases import our_cases, read_offers
from flawline.benchmarks.peers.environments import Peer, PeerError

SCRIPTS = Path(environments.__file__).parent / "workers"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--weights {weights}", "neither --test nor --images"),
        ("--weights {weights}x --images {good}", "no such file; expected the weights of ResNet-18"),
        ("--weights {weights} --test {good}", "no folder test/ in it"),
        ("--weights {weights} --images {good} --work {good}", "is there already; expected a new or an empty folder"),
        ("--weights {weights} --images {good} --test-images 9", "--test-images without --test: there are no labelled"),
        (
            "--weights {weights} --images {good} --bundle b --factors int8",
            "--bundle together with --factors: nothing is",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_installed(words, message, weights, good_images, capsys):
    assert main(["bench", "peers", *words.format(weights=weights, good=good_images).split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "--peers foo",
        "--precisions fp31",
        "--precisions fp32@",
        "--precisions fp32@foo",
        "--precisions int8@openvino",
        "--runs 0",
        "--factors fp16,int4",
        "--test-images 0",
    ],
)
def test_words_that_mean_nothing_are_refused(words, weights, good_images, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "peers", "--weights", str(weights), "--images", str(good_images), *words.split()])
    assert "expected" in capsys.readouterr().err


def test_without_an_index_the_command_ends_with_what_is_missing(weights, good_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    words = ["--weights", str(weights), "--images", str(good_images), "--environments", str(tmp_path / "made")]
    assert main(["bench", "peers", *words, "--peers", "anomavision"]) == 2
    error = capsys.readouterr().err
    assert "no peer could be installed: anomavision cannot be installed: ERROR: No matching distribution" in error
    assert list((tmp_path / "made").iterdir()) == []


def test_an_environment_is_made_whole_or_not_at_all_and_found_again(tmp_path):
    said: list[str] = []
    with pytest.raises(PeerError, match="nothing cannot be installed: ERROR: You must give at least one requirement"):
        environments.provide(Peer("nothing", (), "none"), tmp_path / "made", say=said.append)
    assert list((tmp_path / "made").iterdir()) == []
    complete = Peer("pip", ("pip",), "MIT")
    python = environments.provide(complete, tmp_path / "made", say=said.append)
    assert python.exists()
    assert environments.provide(complete, tmp_path / "made", say=said.append) == python
    assert said[-1] == "pip: environment found"


def test_a_peer_that_does_not_fit_is_named_with_its_last_words(tmp_path):
    with pytest.raises(PeerError, match=r"absent does not fit: .*No module named workers\.absent_fit"):
        environments.fit(Peer("absent", (), "none"), Path(sys.executable), {}, tmp_path / "absent", threads=1)


def test_a_peer_that_does_not_end_is_ended_and_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "FIT_TIMEOUT_S", 0.5)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho still exporting\nexec sleep 60\n")
    python.chmod(0o755)
    with pytest.raises(PeerError, match=r"slow still fits and exports after 0\.5 s, and said last: still exporting"):
        environments.fit(Peer("slow", (), "none"), python, {}, tmp_path / "slow", threads=1)


def test_offers_become_cases_with_the_size_of_their_files(tmp_path):
    (tmp_path / "model.xml").write_bytes(b"x" * 3)
    (tmp_path / "model.bin").write_bytes(b"x" * 70)
    offers = {
        "cases": [
            {
                "engine": "openvino",
                "precision": "f32",
                "files": [str(tmp_path / f"model.{end}") for end in ("xml", "bin")],
            }
        ],
        "failures": [{"engine": "openvino", "precision": "int8", "reason": "ValueError: no"}],
        "versions": {"anomalib": "1"},
        "notes": [],
    }
    (tmp_path / "cases.json").write_text(json.dumps(offers))
    (case,), (failure,), versions, notes = read_offers(tmp_path / "cases.json", "anomalib", ["python"], {"A": "b"})
    assert (case.name, case.deployed_bytes, case.command) == ("anomalib openvino f32", 73, ("python",))
    assert case.is_float
    assert (failure.name, failure.reason) == ("anomalib openvino int8", "ValueError: no")
    assert (versions, notes) == ({"anomalib": "1"}, [])


def test_a_precision_that_the_bundle_lacks_is_a_failure_and_the_rest_goes_on(colour_bundle):
    cases, failures = our_cases([colour_bundle], [("int8", "onnxruntime"), ("fp32", "onnxruntime")])
    assert [case.name for case in cases] == ["flawline onnxruntime fp32, fp16 factors"]
    assert [one.name for one in failures] == ["flawline onnxruntime int8"]
    assert failures[0].reason == "colour.flaw does not hold int8; it holds fp32"


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_scripts_of_other_interpreters_import_no_flawline(script):
    text = (SCRIPTS / script).read_text()
    if script != "flawline_score.py":
        assert "import flawline" not in text
        assert "from flawline" not in text
        assert "flawline" in text.split('"""')[1], "its docstring should say so"
