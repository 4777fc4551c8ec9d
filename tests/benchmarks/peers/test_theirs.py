"""Peers installed and fitted, without the peers."""

import json
from dataclasses import replace

import pytest

from flawline.benchmarks.environment import describe
from flawline.benchmarks.peers import environments
from flawline.benchmarks.peers.environments import PeerError
from flawline.benchmarks.peers.theirs import fit_theirs, install
from flawline.runtime.errors import InputError

OFFERS = {
    "cases": [{"engine": "openvino", "precision": hint, "files": []} for hint in ("f32", "int8 rest bf16")],
    "failures": [{"engine": "torch", "precision": "fp32", "reason": "KeyError: no"}],
    "versions": {"anomavision": "3"},
    "notes": [],
}


def fitted(frames, tmp_path, monkeypatch, flags: list[str]):
    """What both peers enter on a processor with these flags: one does not fit, the other offers two cases."""

    def fit(peer, python, task, folder, *, threads):
        if peer.name == "anomalib":
            raise PeerError("anomalib does not fit")
        (tmp_path / "cases.json").write_text(json.dumps(OFFERS))
        return tmp_path / "cases.json"

    monkeypatch.setattr(environments, "fit", fit)
    return fit_theirs(
        dict.fromkeys(("anomalib", "anomavision"), tmp_path / "python"),
        frames,
        tmp_path,
        weights=tmp_path / "weights.npz",
        dimension=4,
        threads=1,
        environment=replace(describe(), cpu_flags=flags),
    )


def test_bf16_is_entered_where_the_processor_computes_in_it(frames, tmp_path, monkeypatch):
    with_bf16 = fitted(frames, tmp_path, monkeypatch, ["avx2", "amx_bf16"])
    without = fitted(frames, tmp_path, monkeypatch, ["avx2"])
    assert [case.name for case in with_bf16.cases] == [
        "anomavision openvino f32",
        "anomavision openvino int8 rest bf16",
    ]
    assert [case.name for case in without.cases] == ["anomavision openvino f32"]
    assert without.failures[-1].reason == "this processor has no bf16"


def test_a_peer_that_does_not_fit_is_a_failure_and_the_rest_goes_on(frames, tmp_path, monkeypatch):
    theirs = fitted(frames, tmp_path, monkeypatch, ["amx_bf16"])
    assert [(one.name, one.reason) for one in theirs.failures] == [
        ("anomalib", "anomalib does not fit"),
        ("anomavision torch fp32", "KeyError: no"),
    ]
    assert list(theirs.about) == ["anomavision"]
    assert theirs.about["anomavision"].licence == "MIT"


def test_one_peer_that_can_be_had_is_enough_and_none_is_not(tmp_path, monkeypatch):
    def provide(peer, folder, **options):
        if peer.name == "anomalib":
            raise PeerError("no index")
        return folder / peer.name

    monkeypatch.setattr(environments, "provide", provide)
    installed, failures = install(["anomalib", "anomavision"], tmp_path)
    assert installed == {"anomavision": tmp_path / "anomavision"}
    assert [one.reason for one in failures] == ["no index"]
    with pytest.raises(InputError, match="no peer could be installed: no index; expected a package index"):
        install(["anomalib"], tmp_path)
