"""Published weights into a classifier that is to be trained: batch normalisation stays apart."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from flawline.detectors.classifier import Classifier
from flawline.detectors.digest import sha256_of
from flawline.detectors.weights import RANDOM, WeightsRecord, read_state
from flawline.runtime.errors import InputError

# Says nothing about the network: a count of training steps, which older files lack.
_COUNTER = ".num_batches_tracked"


def fresh_record(network: Classifier) -> WeightsRecord:
    """The record of weights that come from no file."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return WeightsRecord(RANDOM, digest.hexdigest(), random=True)


def load_classifier_weights(network: Classifier, path: Path) -> WeightsRecord:
    """Fills a classifier, in place, with the weights of a file.

    Args:
        network: The last layer stays as it is if the file's is of another number of classes.
        path: A state dict in a `.pth`, `.safetensors` or `.npz` file, with the network's names.

    Raises:
        InputError: The file is missing, unreadable, executes code on loading, or holds another network's weights.
    """
    received = {name: value for name, value in read_state(path).items() if not name.endswith(_COUNTER)}
    expected = {name: value for name, value in network.state_dict().items() if not name.endswith(_COUNTER)}
    foreign = sorted(received.keys() - expected.keys())
    if foreign:
        raise InputError(
            f"weights {path.name}: {foreign[0]} has no place in {network.title}: another network's weights"
        )
    last = _last_layer(network)
    if all(name in received and len(received[name].shape) for name in last):
        counts = {len(received[name]) for name in last}
        if counts != {network.classes} and len(counts) == 1 and _fits(received, expected, last):
            received.update({name: expected[name] for name in last})
    for name, like in expected.items():
        value = received.get(name)
        if value is None or value.shape != like.shape:
            found = f"no {name}" if value is None else f"{name} of shape {tuple(value.shape)}"
            raise InputError(
                f"weights {path.name}: {found}, expected {name} {tuple(like.shape)} of {network.title}: another network's "
                "weights"
            )
        # What is finite in float64 may not be where the network holds it.
        if not value.is_floating_point() or not torch.isfinite(value.to(like.dtype)).all():
            raise InputError(
                f"weights {path.name}: {name} holds NaN or infinity as {like.dtype}, or is of {value.dtype}"
            )
    network.load_state_dict(received, strict=False)
    return WeightsRecord(path.name, sha256_of(path), random=False)


def _last_layer(network: Classifier) -> tuple[str, str]:
    """Names of weight and bias of the layer behind the deep features: the last of the parameters."""
    weight, bias = [name for name, _ in network.named_parameters()][-2:]
    return weight, bias


def _fits(received: dict[str, Tensor], expected: dict[str, Tensor], names: tuple[str, str]) -> bool:
    return all(received[name].shape[1:] == expected[name].shape[1:] for name in names)
