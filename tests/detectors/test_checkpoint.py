"""Checkpoints: every way to be wrong is one clear error."""

import contextlib
import io
import os
import pickle
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flawline.detectors.checkpoint import (
    Checkpoint,
    moments_of,
    read_checkpoint,
    require_place,
    set_moments,
    write_checkpoint,
)
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


def ragged() -> torch.Tensor:
    """A tensor without a shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls it a prototype
        return torch.nested.nested_tensor([torch.zeros(4), torch.zeros(3)], layout=torch.strided)


def doubling() -> list[object]:
    """A list of two references to a list of two references and so on, whose text would have 2^40 parts."""
    content: list[object] = [0.5]
    for _ in range(40):
        content = [content, content]
    return content


def containing_itself() -> list[object]:
    content: list[object] = [0.5]
    content.append(content)
    return content


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format",), "flawline-checkpoint-2", "received the format 'flawline-checkpoint-2', expected 'flawline-check"),
        (("format",), torch.zeros(2), "it does not say its format"),
        (("contract",), [1], "does not say what it is of"),
        (("contract", "seed"), torch.tensor([1, 2]), "its seed is of type Tensor, not int"),
        (("contract", "seed"), torch.tensor(3), "its seed is of type Tensor, not int"),
        (("contract", "seed"), 3.0, "its seed is of type float, not int"),
        (("contract", "architecture"), doubling(), "its architecture is of type list, not str"),
        (("contract", "architecture"), "two layers", "is of architecture 'two layers', received 'one layer'; go on"),
        (("contract", "seed"), 4, "is of seed 4, received 3; go on with the same"),
        (("epochs",), [], "holds no epoch"),
        (("epochs",), [[0.5, float("nan")]], "the losses of epoch 1 are not two finite numbers"),
        (("epochs",), [[1.0, 0.5], [0.5]], "the losses of epoch 2 are not two finite numbers"),
        (("epochs",), [["0.5", 1.0]], "the losses of epoch 1 are not two finite numbers"),
        (("epochs",), [{}], "the losses of epoch 1 are a dict, not a list"),
        (("epochs",), [doubling()], "the losses of epoch 1 are not two finite numbers"),
        (("epochs",), containing_itself(), "the losses of epoch 1 are a float, not a list"),
        (("network",), {}, "its tensors are not those of the network"),
        (("network", WEIGHT), torch.zeros(4, 3), r"0.weight is torch.float32 \(4, 3\), not torch.float32 \(3, 4\)"),
        (("network", WEIGHT), torch.zeros(3, 4, dtype=torch.float64), r"0.weight is torch.float64"),
        (("network", WEIGHT), torch.zeros(3, 4).to_sparse(), "0.weight is no dense, contiguous tensor"),
        (("network", WEIGHT), torch.zeros(1).expand(3, 4), "0.weight is no dense, contiguous tensor"),
        (("network", WEIGHT), torch.zeros(4, 3).T, "0.weight is no dense, contiguous tensor"),
        (("network", WEIGHT), torch.zeros(3, 4, device="meta"), "0.weight is no dense, contiguous tensor"),
        (("network", WEIGHT), ragged(), "0.weight is no dense, contiguous tensor"),
        (("network", WEIGHT), 3.0, "0.weight is no dense, contiguous tensor"),
        (("best", WEIGHT), NAN, "0.weight holds NaN or infinity"),
        (("moments",), {}, "the optimizer's state is not that of the network's parameters"),
        (("moments", WEIGHT), {"step": torch.tensor(1.0)}, "its tensors are not those of the network"),
        (("moments", WEIGHT, "exp_avg"), torch.zeros(2), "exp_avg is torch.float32"),
        (("moments", WEIGHT, "exp_avg"), torch.zeros(1).expand(3, 4), "exp_avg is no dense, contiguous tensor"),
        (("moments", WEIGHT, "exp_avg_sq"), NAN, "exp_avg_sq holds NaN"),
        (("moments", WEIGHT, "exp_avg_sq"), torch.full((3, 4), -1e-30), "exp_avg_sq, a mean of squares, is below 0"),
        (("moments", WEIGHT, "step"), torch.tensor(-1.0), "step is -1, not a whole number from 1 on"),
        (("moments", WEIGHT, "step"), torch.tensor(0.0), "step is 0, not a whole number from 1 on"),
        (("moments", WEIGHT, "step"), torch.tensor(1.5), "step is 1.5, not a whole number from 1 on"),
    ],
)
def test_content_that_cannot_be_is_refused_in_a_line(
    path: Path, keys: tuple[str, ...], value: object, message: str
) -> None:
    content = torch.load(path, weights_only=True)
    change(content, *keys, value=value)
    torch.save(content, path)
    with pytest.raises(InputError, match=message) as raised:
        read_checkpoint(path, network(0), CONTRACT)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("keys", [("format",), ("contract", "architecture")], ids=str)
def test_what_is_quoted_of_the_file_cannot_steer_a_terminal(path: Path, keys: tuple[str, ...]) -> None:
    content = torch.load(path, weights_only=True)
    change(content, *keys, value="\x1b[31mred\nsecond line\r\u202e" + 10_000 * "x")
    torch.save(content, path)
    with pytest.raises(InputError) as raised:
        read_checkpoint(path, network(0), CONTRACT)
    line = str(raised.value)
    assert r"'\x1b[31mred\nsecond line\r\u202exxx" in line
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 1000


def test_what_torch_says_of_an_archive_is_escaped(path: Path) -> None:
    """It quotes the names of what it does not find."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    # The key of the first tensor's storage.
    hostile = parts[pickled].replace(b"X\x01\x00\x00\x000", b"X\x05\x00\x00\x00\x1b[31m", 1)
    assert hostile != parts[pickled]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, hostile if name == pickled else data)
    with pytest.raises(InputError, match=r"x1b\[31m") as raised:
        read_checkpoint(path, network(0), CONTRACT)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["", "nowhere/run.pt", "run.pt/run.pt", "pipe", 300 * "x"], ids=lambda name: name[:12])
def test_path_that_no_checkpoint_can_have_is_refused(path: Path, name: str) -> None:
    os.mkfifo(path.with_name("pipe"))
    with pytest.raises(InputError, match="expected the name of a file, in a folder that exists and can be written to"):
        require_place(path.parent / name)


def test_path_of_a_checkpoint_or_of_none_yet_is_accepted(path: Path) -> None:
    require_place(path)
    require_place(path.with_name("other.pt"))


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


def shared_moments(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    moments = content["moments"][WEIGHT]
    moments["exp_avg"] = moments["exp_avg_sq"][:]
    return content


def same_best(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    content["best"] = {name: value[...] for name, value in content["network"].items()}
    return content


@pytest.mark.parametrize("changed", [shared_moments, same_best])
def test_tensors_that_share_their_memory_are_refused(path: Path, changed: Callable[[Path], dict[str, Any]]) -> None:
    torch.save(changed(path), path)
    with pytest.raises(InputError, match="tensors of it share their memory"):
        read_checkpoint(path, network(0), CONTRACT)


def hostile(path: Path, pickled: bytes) -> None:
    """Puts a pickle in the place of the checkpoint's own."""
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(changed, "w") as target:
        for name in archive.namelist():
            target.writestr(name, pickled if name.endswith("data.pkl") else archive.read(name))
    path.write_bytes(changed.getvalue())


def dictionary_by(key: bytes) -> bytes:
    """A pickle of a dictionary, written by hand: made in Python, the key would have to be hashed."""
    return b"\x80\x02}" + key + b"K\x01s."


PAIR_OF_PAIRS = b")q\x00" + b"".join(b"h" + bytes((i,)) + b"\x86q" + bytes((i + 1,)) for i in range(60))
HOSTILE = {
    "a pair of pairs 60 deep": (PAIR_OF_PAIRS, "takes up an object again"),
    "a tuple of a tuple": (b")" + b"\x85" * 20_000, "nested more than 100 deep"),
    "the same by marks": (b"(" * 10_000 + b"t" * 10_000, "nested more than 100 deep"),
    "a tuple of many": (
        b"(" + b")" * 500_000 + b"t",
        r"its pickle has 500009 bytes; one of this network has no more than \d",
    ),
    "a size of sizes": (b"ctorch\nSize\nq\x01)" + b"\x85h\x01R" * 40, "damaged or none of ours"),
    "nothing to take": (b"\x86", "it is no pickle"),
    "an unknown entry": (b"h\x09", "takes up an object again"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_keys_that_could_not_be_hashed_in_time_are_refused(path: Path, name: str) -> None:
    key, message = HOSTILE[name]
    hostile(path, dictionary_by(key))
    with pytest.raises(InputError, match=message):
        read_checkpoint(path, network(0), CONTRACT)


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/DATA.PKL", "archive/constants.pkl", "other.pkl"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_second_pickle_is_refused(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"\x80\x02}.")
    with pytest.raises(InputError, match="it holds 2 pickles, not one"):
        read_checkpoint(path, network(0), CONTRACT)


def test_no_more_of_a_pickle_is_read_than_a_checkpoint_needs(path: Path) -> None:
    """Neither time nor memory goes by what a hostile file says or has."""
    hostile(path, b"\x80\x02" + b")" * 20_000_000 + b".")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="its pickle has 20000003 bytes"):
            read_checkpoint(path, network(0), CONTRACT)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("count", "epochs"), [(1, 1000), (40, 1), (1, 3000)])
def test_an_honest_pickle_takes_less_than_half_of_what_is_let_through(tmp_path: Path, count: int, epochs: int) -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(count)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 1)).sum().backward()
    optimizer.step()
    best = {name: value.clone() for name, value in model.state_dict().items()}
    state = Checkpoint([(0.5, 0.25)] * epochs, model.state_dict(), best, moments_of(model, optimizer))
    path = tmp_path / "run.pt"
    write_checkpoint(path, state, CONTRACT)
    assert len(read_checkpoint(path, model, CONTRACT, epochs=epochs).epochs) == epochs
    with zipfile.ZipFile(path) as archive:
        (size,) = [member.file_size for member in archive.infolist() if member.filename.endswith(".pkl")]
    hostile(path, bytes(2 * size))
    with pytest.raises(InputError, match=r"it is no pickle|at position 0"):
        read_checkpoint(path, model, CONTRACT, epochs=epochs)


def test_what_stands_before_the_archive_is_not_loaded(path: Path) -> None:
    path.write_bytes(dictionary_by(b"X\x01\x00\x00\x00a") + path.read_bytes())
    with pytest.raises(InputError, match="it does not begin as an archive does"):
        read_checkpoint(path, network(0), CONTRACT)


def test_many_tensors_are_no_deep_nesting(path: Path) -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(1200)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 1)).sum().backward()
    optimizer.step()
    best = {name: value.clone() for name, value in model.state_dict().items()}
    state = Checkpoint([(0.5, 0.25)] * 2500, model.state_dict(), best, moments_of(model, optimizer))
    write_checkpoint(path, state, CONTRACT)
    assert len(read_checkpoint(path, model, CONTRACT).network) == 2400
