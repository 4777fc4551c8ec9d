"""Checkpoints: every way to be wrong is one clear error."""

import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flawline.detectors.checkpoint import Checkpoint, moments_of, read_checkpoint, set_moments, write_checkpoint
from flawline.runtime.errors import InputError

CONTRACT = {"architecture": "one layer", "seed": 3}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def stepped(seed: int) -> tuple[nn.Module, torch.optim.Adam]:
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.rand(5, 4)).square().sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model, optimizer = stepped(0)
    state = Checkpoint([(0.5, 0.25)], model.state_dict(), network(1).state_dict(), moments_of(model, optimizer))
    write_checkpoint(tmp_path / "run.pt", state, CONTRACT)
    return tmp_path / "run.pt"


def test_what_is_written_is_read(path: Path) -> None:
    model, optimizer = stepped(0)
    state = read_checkpoint(path, network(9), CONTRACT)
    assert state.epochs == [(0.5, 0.25)]
    assert all(torch.equal(state.network[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(state.best[name], value) for name, value in network(1).state_dict().items())
    other, fresh = stepped(2)
    set_moments(other, fresh, state.moments)
    assert fresh.param_groups[0]["lr"] == 0.01
    for index, values in optimizer.state_dict()["state"].items():
        assert all(torch.equal(fresh.state_dict()["state"][index][name], value) for name, value in values.items())


def change(content: dict[str, Any], *keys: str | int, value: object) -> None:
    for key in keys[:-1]:
        content = content[key]  # type: ignore[index]
    content[keys[-1]] = value  # type: ignore[index]


WEIGHT = "0.weight"
NAN = torch.full((3, 4), float("nan"))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format",), "flawline-checkpoint-2", "received the format 'flawline-checkpoint-2', expected 'flawline-check"),
        (("contract",), [1], "does not say what it is of"),
        (("contract", "seed"), 4, "is of seed 4, received 3; go on with the same"),
        (("epochs",), [], "holds no epoch"),
        (("epochs",), [[0.5, float("nan")]], r"the losses of an epoch are \[0.5, nan\]"),
        (("epochs",), [[0.5]], "the losses of an epoch"),
        (("epochs",), [["0.5", 1.0]], "the losses of an epoch"),
        (("network",), {}, "its tensors are not those of the network"),
        (("network", WEIGHT), torch.zeros(4, 3), r"0.weight is torch.float32 \(4, 3\), not torch.float32 \(3, 4\)"),
        (("network", WEIGHT), torch.zeros(3, 4, dtype=torch.float64), r"0.weight is torch.float64"),
        (("network", WEIGHT), torch.zeros(3, 4).to_sparse(), "0.weight is no dense tensor"),
        (("network", WEIGHT), 3.0, "0.weight is no dense tensor"),
        (("best", WEIGHT), NAN, "0.weight holds NaN or infinity"),
        (("moments",), {}, "the optimizer's state is not that of the network's parameters"),
        (("moments", WEIGHT), {"step": torch.tensor(1.0)}, "its tensors are not those of the network"),
        (("moments", WEIGHT, "exp_avg"), torch.zeros(2), "exp_avg is torch.float32"),
        (("moments", WEIGHT, "exp_avg_sq"), NAN, "exp_avg_sq holds NaN"),
    ],
)
def test_content_that_cannot_be_is_refused(path: Path, keys: tuple[str, ...], value: object, message: str) -> None:
    content = torch.load(path, weights_only=True)
    change(content, *keys, value=value)
    torch.save(content, path)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path, network(0), CONTRACT)


class Payload:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_file_that_would_run_code_is_refused_without_running_it(path: Path) -> None:
    torch.save({"format": Payload(path.parent / "ran")}, path)
    with pytest.raises(InputError, match="would run code on loading"):
        read_checkpoint(path, network(0), CONTRACT)
    assert not (path.parent / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"format": "flawline-checkpoint-1"})])
def test_file_that_is_no_archive_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"run.pt is damaged or none of ours"):
        read_checkpoint(path, network(0), CONTRACT)


def test_truncated_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), 397):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="damaged or none of ours"):
            read_checkpoint(path, network(0), CONTRACT)


def test_flipped_bytes_are_refused_or_harmless(path: Path) -> None:
    """Never another error: an archive has checksums, but not over all of its own structure."""
    whole = path.read_bytes()
    for position in range(0, len(whole), 61):
        path.write_bytes(whole[:position] + bytes((whole[position] ^ 0x40,)) + whole[position + 1 :])
        with contextlib.suppress(InputError):
            read_checkpoint(path, network(0), CONTRACT)


def test_compressed_archive_is_refused(path: Path) -> None:
    squeezed = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in archive.namelist():
            target.writestr(name, archive.read(name))
    path.write_bytes(squeezed.getvalue())
    with pytest.raises(InputError, match="its parts are compressed"):
        read_checkpoint(path, network(0), CONTRACT)


def test_failed_write_leaves_the_earlier_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    model, optimizer = stepped(4)
    state = Checkpoint([(0.5, 0.25)], model.state_dict(), model.state_dict(), moments_of(model, optimizer))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match="cannot be written: No space left on device"):
        write_checkpoint(path, state, CONTRACT)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
