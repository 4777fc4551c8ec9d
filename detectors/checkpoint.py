"""Checkpoints of a training: the file from which it goes on as if it had never stopped.

A checkpoint is what `torch.save` writes of plain dictionaries, lists, strings, numbers and tensors: `format`, `contract`
(what the training was of: a training of anything else refuses the file), `epochs` (training and validation loss of each),
`network`, `best` (state dicts now and at the lowest validation loss) and `moments` (Adam's, by parameter). There are no
generator states: what is random in an epoch depends on the seed and the epoch's number alone.
"""

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawline.runtime.errors import InputError
from flawline.runtime.files import write_whole

FORMAT = "flawline-checkpoint-1"

Contract = Mapping[str, str | int | float]
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Checkpoint:
    """A training after a whole number of epochs.

    Attributes:
        epochs: Mean training loss and mean validation loss of each epoch.
        network: State dict after the last epoch.
        best: State dict after the epoch of the lowest validation loss.
        moments: Adam's state for each parameter, by name: `step`, `exp_avg`, `exp_avg_sq`.
    """

    epochs: list[tuple[float, float]]
    network: dict[str, Tensor]
    best: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def moments_of(network: nn.Module, optimizer: torch.optim.Adam) -> dict[str, dict[str, Tensor]]:
    """Adam's state by the names of the parameters."""
    return {name: dict(optimizer.state[parameter]) for name, parameter in network.named_parameters()}


def set_moments(network: nn.Module, optimizer: torch.optim.Adam, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Puts Adam's state back; its settings stay those it was made with."""
    state = {index: dict(moments[name]) for index, (name, _) in enumerate(network.named_parameters())}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def write_checkpoint(path: Path, checkpoint: Checkpoint, contract: Contract) -> None:
    """Writes a checkpoint whole or not at all; an earlier one of that name is replaced.

    Raises:
        ResourceError: The disk is full.
        InputError: The folder does not exist or may not be written to.
    """
    buffer = io.BytesIO()
    torch.save(
        {
            "format": FORMAT,
            "contract": dict(contract),
            "epochs": [list(losses) for losses in checkpoint.epochs],
            "network": checkpoint.network,
            "best": checkpoint.best,
            "moments": checkpoint.moments,
        },
        buffer,
    )
    write_whole(path, buffer.getbuffer())


def read_checkpoint(path: Path, network: nn.Module, contract: Contract) -> Checkpoint:
    """Reads a checkpoint and checks all of it against the training that is to go on.

    Args:
        path: The file.
        network: Decides on names, shapes and types of the tensors; not changed.
        contract: What the training is of.

    Raises:
        InputError: The file is damaged, no checkpoint, of a newer format, or of a training of something else.
    """
    content = _load(path)
    if content.get("format") != FORMAT:
        raise InputError(f"checkpoint {path}: received the format {content.get('format')!r}, expected {FORMAT!r}")
    _check_contract(path, content.get("contract"), contract)
    state = network.state_dict()
    moments = content.get("moments")
    parameters = dict(network.named_parameters())
    if not isinstance(moments, dict) or moments.keys() != parameters.keys():
        raise _damaged(path, "the optimizer's state is not that of the network's parameters")
    return Checkpoint(
        epochs=_epochs(path, content.get("epochs")),
        network=_tensors(path, content.get("network"), state),
        best=_tensors(path, content.get("best"), state),
        moments={
            name: _tensors(path, moments[name], dict(zip(_MOMENTS, (torch.tensor(0.0), value, value), strict=True)))
            for name, value in parameters.items()
        },
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        # Before torch allocates anything by what the archive says: its members lie in it as they are.
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise _damaged(path, "its parts are compressed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run the file's code.
        raise _damaged(path, "it would run code on loading") from error
    except Exception as error:  # a damaged archive or pickle raises almost anything
        raise _damaged(path, (str(error).strip().splitlines() or [type(error).__name__])[0]) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__}")
    return content


def _check_contract(path: Path, received: object, expected: Contract) -> None:
    if not isinstance(received, dict) or received.keys() != expected.keys():
        raise _damaged(path, "it does not say what it is of")
    for name, value in expected.items():
        if received[name] != value:
            raise InputError(
                f"checkpoint {path} is of {name} {received[name]}, received {value}; "
                "go on with the same, or name another checkpoint"
            )


def _epochs(path: Path, received: object) -> list[tuple[float, float]]:
    if not isinstance(received, list) or not received:
        raise _damaged(path, "it holds no epoch")
    epochs = []
    for losses in received:
        if not isinstance(losses, list) or len(losses) != 2 or not all(_is_finite(value) for value in losses):
            raise _damaged(path, f"the losses of an epoch are {losses!r}")
        epochs.append((losses[0], losses[1]))
    return epochs


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and abs(value) < float("inf")


def _tensors(path: Path, received: object, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(received, dict) or received.keys() != expected.keys():
        raise _damaged(path, "its tensors are not those of the network")
    for name, like in expected.items():
        value = received[name]
        if type(value) is not Tensor or value.layout != torch.strided:
            raise _damaged(path, f"{name} is no dense tensor")
        if value.shape != like.shape or value.dtype != like.dtype:
            raise _damaged(path, f"{name} is {value.dtype} {tuple(value.shape)}, not {like.dtype} {tuple(like.shape)}")
        if not torch.isfinite(value).all():
            raise _damaged(path, f"{name} holds NaN or infinity")
    return received


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"checkpoint {path} is damaged or none of ours ({reason}); remove it, or name another")
