"""Published weights into our networks: reads the files, folds batch normalisation, and tells the wrong network."""

import hashlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from flawline.detectors.digest import sha256_of
from flawline.detectors.folded import FeatureNetwork, FoldedConv2d
from flawline.runtime.errors import InputError

RANDOM = "random"


@dataclass(frozen=True)
class WeightsRecord:
    """Where weights came from.

    Attributes:
        origin: Name of the file, without its folder, or `random`.
        sha256: Hash of the file; of the parameters in the order of the network where they are random.
        random: Whether nobody trained them.
    """

    origin: str
    sha256: str
    random: bool


def load_weights(network: FeatureNetwork, weights: str | Path, seed: int = 0) -> WeightsRecord:
    """Fills a network, which may be on the meta device, with the weights of a file or with random ones.

    Convolutions may come with their batch normalisation apart (as published) or already folded in (weight and bias).
    Parameters of parts behind the network's last layer are ignored.

    Args:
        network: The network to fill, in place.
        weights: A `.pth`, `.safetensors` or `.npz` file, or `random`.
        seed: Of the random weights.

    Raises:
        InputError: The file is missing, unreadable, executes code on loading, or holds another network's weights.
    """
    if weights == RANDOM:
        network.to_empty(device="cpu")
        network.randomize(seed)
        digest = hashlib.sha256()
        for parameter in network.parameters():
            digest.update(parameter.detach().numpy().tobytes())
        return WeightsRecord(RANDOM, digest.hexdigest(), random=True)
    path = Path(weights)
    network.load_state_dict(_folded(network, read_state(path), path.name), assign=True)
    return WeightsRecord(path.name, sha256_of(path), random=False)


def _read_npz(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _read_pth(path: Path) -> Any:
    with warnings.catch_warnings():
        # On the pickle protocol of files that are then refused with one line of ours.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".pth": _read_pth,
    ".pt": _read_pth,
    ".safetensors": safetensors.torch.load_file,
    ".npz": _read_npz,
}


def require_weights(path: Path) -> None:
    """Refuses what is no file of weights by its name, before anything of it is read.

    Raises:
        InputError: It is missing, or of another ending.
    """
    if path.suffix not in _READERS:
        raise InputError(f"weights {path.name}: expected a file ending in {', '.join(_READERS)}, or `{RANDOM}`")
    if not path.is_file():
        raise InputError(f"weights {path}: no such file")


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads a state dict, whatever network it is of.

    Args:
        path: A `.pth`, `.safetensors` or `.npz` file.

    Raises:
        InputError: The file is missing, unreadable, executes code on loading, or holds something else.
    """
    require_weights(path)
    try:
        state = _READERS[path.suffix](path)
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run the file's code.
        raise InputError(
            f"weights {path.name}: not a plain state dict of tensors; it would run code on loading or is damaged. "
            "Save network.state_dict() and pass that file"
        ) from error
    except Exception as error:  # a damaged pickle or archive raises almost anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"weights {path.name}: cannot be read as {path.suffix} ({reason})") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError(
            f"weights {path.name}: received a {type(state).__name__} that is not a state dict; "
            "expected parameter names with tensors, as network.state_dict() gives"
        )
    return dict(state)


def _folded(network: FeatureNetwork, state: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Multiplies out `gamma (w x + b - mean) / sqrt(var + eps) + beta` in float64, where a normalisation is apart."""
    # A count of training steps says nothing about the network, and appears at every batch normalisation.
    unused = {name for name in state if not name.endswith(".num_batches_tracked")}

    def take(name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in state:
            received = f"no {name}"
        elif tuple(state[name].shape) != shape:
            received = f"{name} of shape {tuple(state[name].shape)}"
        else:
            unused.discard(name)
            return state[name].to(torch.float64)
        raise InputError(
            f"weights {origin}: {received}, expected {name} {shape} of {network.title}: another network's weights"
        )

    folded = {}
    for name, module in network.named_modules():
        if not isinstance(module, FoldedConv2d):
            continue
        channels = (module.out_channels,)
        weight = take(f"{name}.weight", tuple(module.weight.shape))
        parent = name.rpartition(".")[0]
        norm = f"{parent}.{module.batch_norm}" if parent else module.batch_norm
        has_bias = f"{name}.bias" in state
        bias = take(f"{name}.bias", channels) if has_bias else torch.zeros(channels, dtype=torch.float64)
        if not has_bias or f"{norm}.weight" in state:
            variance = take(f"{norm}.running_var", channels)
            scale = take(f"{norm}.weight", channels) / torch.sqrt(variance + module.eps)
            weight = weight * scale[:, None, None, None]
            bias = take(f"{norm}.bias", channels) + scale * (bias - take(f"{norm}.running_mean", channels))
        for parameter, value in ((f"{name}.weight", weight), (f"{name}.bias", bias)):
            folded[parameter] = value.to(torch.float32)
            if not torch.isfinite(folded[parameter]).all():
                raise InputError(f"weights {origin}: {parameter}, with its batch norm, holds NaN or infinity")
    foreign = sorted(name for name in unused if not network.is_behind(name))
    if foreign:
        raise InputError(f"weights {origin}: {foreign[0]} has no place in {network.title}: another network's weights")
    return folded
