"""Checkpoints of a training: the file from which it goes on as if it had never stopped.

A checkpoint is what `torch.save` writes of plain dictionaries, lists, strings, numbers and tensors: `format`, `contract`
(what the training was of: a training of anything else refuses the file), `epochs` (training and validation loss of each),
`network`, `best` (state dicts now and at the lowest validation loss), `moments` (Adam's, by parameter) and, where the loss
learns something itself, `objective` (its state dict). There are no generator states: what is random in an epoch depends on
the seed and the epoch's number alone.
"""

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawline.detectors.checkpoint_pickle import check_pickle
from flawline.runtime.errors import InputError
from flawline.runtime.files import write_whole

FORMAT = "flawline-checkpoint-1"

Contract = Mapping[str, str | int | float]
# How a zip archive begins.
_ARCHIVE = b"PK\x03\x04"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# The longest value that is quoted from a file.
_QUOTED_CHARACTERS = 200
# Several times what a pickle takes for each, beside its name: 110 bytes, and 26.
_BYTES_PER_TENSOR = 512
_BYTES_PER_EPOCH = 64
# For format, contract and keys.
_BYTES_AROUND = 4096
# So many may have been trained, whatever is asked for now.
_EPOCHS = 1000


@dataclass
class Checkpoint:
    """A training after a whole number of epochs.

    Attributes:
        epochs: Mean training loss and mean validation loss of each epoch.
        network: State dict after the last epoch.
        best: State dict after the epoch of the lowest validation loss.
        moments: Adam's state for each parameter, by name: `step`, `exp_avg`, `exp_avg_sq`.
        objective: State dict of what the loss learns itself.
    """

    epochs: list[tuple[float, float]]
    network: dict[str, Tensor]
    best: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]
    objective: dict[str, Tensor] = field(default_factory=dict)


def moments_of(network: nn.Module, optimizer: torch.optim.Adam) -> dict[str, dict[str, Tensor]]:
    """Adam's state by the names of the parameters."""
    return {name: dict(optimizer.state[parameter]) for name, parameter in network.named_parameters()}


def set_moments(network: nn.Module, optimizer: torch.optim.Adam, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Puts Adam's state back; its settings stay those it was made with."""
    state = {index: dict(moments[name]) for index, (name, _) in enumerate(network.named_parameters())}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def require_place(path: Path) -> None:
    """Refuses a path that no checkpoint can be written to, before the work that makes one.

    Raises:
        InputError: It is something else than a file, or its parent is no folder that can be written to.
    """
    try:
        fits = path.parent.is_dir() and os.access(path.parent, os.W_OK) and (path.is_file() or not path.exists())
    except OSError:  # a name that is too long, or a folder that may not be searched
        fits = False
    if not fits:
        raise InputError(
            f"checkpoint {path}: expected the name of a file, in a folder that exists and can be written to"
        )


def write_checkpoint(path: Path, checkpoint: Checkpoint, contract: Contract) -> None:
    """Writes a checkpoint whole or not at all; an earlier one of that name is replaced.

    Raises:
        ResourceError: The disk is full.
        InputError: The folder does not exist or may not be written to.
    """
    buffer = io.BytesIO()
    content = {
        "format": FORMAT,
        "contract": dict(contract),
        "epochs": [list(losses) for losses in checkpoint.epochs],
        "network": checkpoint.network,
        "best": checkpoint.best,
        "moments": checkpoint.moments,
    }
    if checkpoint.objective:
        content["objective"] = checkpoint.objective
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def read_checkpoint(
    path: Path,
    network: nn.Module,
    contract: Contract,
    *,
    learnt: Mapping[str, Tensor] | None = None,
    epochs: int = _EPOCHS,
) -> Checkpoint:
    """Reads a checkpoint and checks all of it against the training that is to go on.

    What a hostile file takes in time and memory before it is refused is bounded by what a checkpoint of this network takes.

    Args:
        path: The file.
        network: Decides on names, shapes and types of the tensors; not changed.
        contract: What the training is of.
        learnt: What the loss has learnt so far, which decides likewise; nothing if None.
        epochs: That the training is to have. A file may hold as many, and 1,000 in any case.

    Raises:
        InputError: The file is damaged, no checkpoint, of a newer format, or of a training of something else.
    """
    state, expected = network.state_dict(), {} if learnt is None else learnt
    parameters = dict(network.named_parameters())
    names = [*state, *state, *expected, *(f"{name}.{moment}" for name in parameters for moment in _MOMENTS)]
    content = _load(path, _most_bytes(names, contract, max(epochs, _EPOCHS)))
    received = content.get("format")
    if type(received) is not str:
        raise _damaged(path, "it does not say its format")
    if received != FORMAT:
        raise InputError(f"checkpoint {path}: received the format {_quoted(received)}, expected {FORMAT!a}")
    _check_contract(path, content.get("contract"), contract)
    moments = content.get("moments")
    if not isinstance(moments, dict) or moments.keys() != parameters.keys():
        raise _damaged(path, "the optimizer's state is not that of the network's parameters")
    objective = content.get("objective", {})
    if not isinstance(objective, dict) or objective.keys() != expected.keys():
        raise _damaged(path, "what the loss has learnt is not of this loss")
    read = Checkpoint(
        epochs=_epochs(path, content.get("epochs")),
        network=_tensors(path, content.get("network"), state),
        best=_tensors(path, content.get("best"), state),
        moments={name: _moments(path, moments[name], parameter) for name, parameter in parameters.items()},
        objective=_tensors(path, objective, expected),
    )
    _check_storages(path, read)
    return read


def _check_storages(path: Path, read: Checkpoint) -> None:
    """Refuses tensors that share memory: a step of the optimizer on one would change the other."""
    groups = (read.network, read.best, read.objective, *read.moments.values())
    storages = [value.untyped_storage() for group in groups for value in group.values() if value.numel()]
    if len({storage.data_ptr() for storage in storages}) < len(storages):
        raise _damaged(path, "tensors of it share their memory")


def _most_bytes(names: Sequence[str], contract: Contract, epochs: int) -> int:
    """What the pickle of a checkpoint with tensors of these names does not exceed."""
    texts = [*names, *contract, *map(str, contract.values())]
    around = _BYTES_AROUND + sum(len(text.encode()) for text in texts)
    return around + _BYTES_PER_TENSOR * len(names) + _BYTES_PER_EPOCH * epochs


def _load(path: Path, most_bytes: int) -> dict[str, Any]:
    try:
        # Before torch allocates anything by what the archive says: its members lie in it as they are.
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise _damaged(path, "its parts are compressed")
            # torch finds it by its name in any case, and takes an archive with another one for code.
            pickles = [member for member in members if member.filename.lower().endswith(".pkl")]
            if len(pickles) != 1:
                raise _damaged(path, f"it holds {len(pickles)} pickles, not one")
            if pickles[0].file_size > most_bytes:
                raise _damaged(
                    path,
                    f"its pickle has {pickles[0].file_size} bytes; one of this network has no more than {most_bytes}",
                )
            with archive.open(pickles[0]) as member:
                check_pickle(member.read(most_bytes))
        with path.open("rb") as file:
            # Where anything else comes first, torch reads that and no archive.
            if file.read(len(_ARCHIVE)) != _ARCHIVE:
                raise _damaged(path, "it does not begin as an archive does")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run the file's code.
        raise _damaged(path, "it would run code on loading") from error
    except Exception as error:  # a damaged archive or pickle raises almost anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        # May name parts of the archive.
        raise _damaged(path, _quoted(reason)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__}")
    return content


def _check_contract(path: Path, received: object, expected: Contract) -> None:
    if not isinstance(received, dict) or received.keys() != expected.keys():
        raise _damaged(path, "it does not say what it is of")
    for name, value in expected.items():
        found = received[name]
        # Before anything is compared or quoted: what equals what is up to the type.
        if type(found) is not type(value):
            raise _damaged(path, f"its {name} is of type {type(found).__name__}, not {type(value).__name__}")
        if found != value:
            raise InputError(
                f"checkpoint {path} is of {name} {_quoted(found)}, received {value!a}; "
                "go on with the same, or name another checkpoint"
            )


def _epochs(path: Path, received: object) -> list[tuple[float, float]]:
    if not isinstance(received, list) or not received:
        raise _damaged(path, "it holds no epoch")
    epochs = []
    for number, losses in enumerate(received, 1):
        if not isinstance(losses, list):
            raise _damaged(path, f"the losses of epoch {number} are a {type(losses).__name__}, not a list")
        if len(losses) != 2 or not all(_is_finite(value) for value in losses):
            raise _damaged(path, f"the losses of epoch {number} are not two finite numbers")
        epochs.append((losses[0], losses[1]))
    return epochs


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and abs(value) < float("inf")


def _tensors(path: Path, received: object, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(received, dict) or received.keys() != expected.keys():
        raise _damaged(path, "its tensors are not those of the network")
    for name, like in expected.items():
        value = received[name]
        if (
            type(value) is not Tensor
            or value.layout != torch.strided
            or value.is_nested
            or value.device.type != "cpu"
            or not value.is_contiguous()
        ):
            raise _damaged(path, f"{name} is no dense, contiguous tensor")
        if value.shape != like.shape or value.dtype != like.dtype:
            raise _damaged(path, f"{name} is {value.dtype} {tuple(value.shape)}, not {like.dtype} {tuple(like.shape)}")
        if not torch.isfinite(value).all():
            raise _damaged(path, f"{name} holds NaN or infinity")
    return received


def _moments(path: Path, received: object, parameter: Tensor) -> dict[str, Tensor]:
    expected = dict(zip(_MOMENTS, (torch.tensor(0.0), parameter, parameter), strict=True))
    moments = _tensors(path, received, expected)
    step = float(moments["step"])
    if step < 1 or not step.is_integer():
        raise _damaged(path, f"step is {step:g}, not a whole number from 1 on")
    if (moments["exp_avg_sq"] < 0).any():
        raise _damaged(path, "exp_avg_sq, a mean of squares, is below 0")
    return moments


def _quoted(value: str | int | float) -> str:
    """A value of the file on one line, without characters that a terminal would obey, and cut where it is long."""
    return ascii(value[:_QUOTED_CHARACTERS] if isinstance(value, str) else value)


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"checkpoint {path} is damaged or none of ours ({reason}); remove it, or name another")
