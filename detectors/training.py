"""Training of autoencoders, of classifiers and of their second heads: Adam, early stopping, checkpoints, seeds.

What is random in an epoch (the order of the images, and whatever the network draws) depends on the seed and the epoch's
number alone. So a training that is stopped after any epoch and resumed gives the very bits of one that ran through, on the
same machine with the same versions and number of threads.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from flawline.detectors.checkpoint import (
    Checkpoint,
    Contract,
    moments_of,
    read_checkpoint,
    require_place,
    set_moments,
    write_checkpoint,
)
from flawline.detectors.objectives import Network, Objective, objective_of
from flawline.detectors.training_images import Indices, TrainingImages
from flawline.detectors.training_options import TrainingOptions
from flawline.detectors.validation_split import validation_split
from flawline.runtime.errors import DeviceError, FlawlineError, InputError
from flawline.runtime.progress import progress


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        epochs: Mean training loss and mean validation loss of each epoch, those before a resumption included.
        best_epoch: Number, from 1, of the epoch with the lowest validation loss, whose weights the network has now.
        stopped_early: Whether patience ran out before the epochs did.
        fitted: Images that it learnt from.
        held_out: Images for validation.
    """

    epochs: tuple[tuple[float, float], ...]
    best_epoch: int
    stopped_early: bool
    fitted: int
    held_out: int


class DivergedError(FlawlineError):
    """The loss became NaN or infinite. The network has its best weights so far, the checkpoint the last finite epoch."""


def train(
    network: Network,
    images: TrainingImages,
    options: TrainingOptions,
    *,
    labels: npt.NDArray[np.int64] | None = None,
    groups: npt.NDArray[np.int64] | None = None,
    checkpoint: Path | None = None,
) -> TrainingResult:
    """Trains a network in place and leaves it with the weights of its lowest validation loss, in evaluation mode.

    Args:
        network: With the weights to begin with, which a checkpoint replaces.
        images: Of the network's shape.
        options: How to train.
        labels: int64 (N,), the class of each image, for a classifier.
        groups: int64 (N,), the number of the group of each image; images of one group (shots of one part) are all trained on
            or all held out for validation. Every image is its own group if None.
        checkpoint: Written after every epoch; where it exists, training goes on from it. It may go on with more `epochs`
            or another `patience` than before; all else must be the same.

    Raises:
        InputError: Images, labels or network do not go together, there are too few images, or the checkpoint is damaged
            or of another architecture, loss, data, seed or the like.
        DivergedError: The loss became NaN or infinite.
        DeviceError: The device is not there.
        ResourceError: The disk is full.
    """
    objective = _objective(network, images, options, labels)
    if checkpoint is not None:
        require_place(checkpoint)
    training = _Training(network, images, options, labels, groups, objective)
    if checkpoint is not None and checkpoint.exists():
        training.resume(checkpoint)
    bar = progress(range(training.steps_left), label="training", unit="batch")
    try:
        # Patience may run out before the bar is full.
        with closing(cast("Generator[int, None, None]", bar)) as ticks, torch.random.fork_rng(devices=()):
            while not training.done:
                training.epoch(lambda: next(ticks, None))
                if checkpoint is not None:
                    training.save(checkpoint)
    except FloatingPointError as error:
        network.load_state_dict(training.best)
        raise DivergedError(f"{error}; {_what_is_left(training, checkpoint)}") from error
    finally:
        network.eval()
    network.load_state_dict(training.best)
    return TrainingResult(
        tuple(training.losses),
        training.best_epoch,
        training.patience_ran_out,
        fitted=len(training.fitted),
        held_out=len(training.held_out),
    )


def _what_is_left(training: _Training, checkpoint: Path | None) -> str:
    if not training.losses:
        return "nothing was learnt, try a lower learning rate"
    kept = "" if checkpoint is None else f", and {checkpoint} the state after epoch {len(training.losses)}"
    return f"the network has the weights of epoch {training.best_epoch}{kept}; begin anew with a lower learning rate"


def _objective(
    network: Network,
    images: TrainingImages,
    options: TrainingOptions,
    labels: npt.NDArray[np.int64] | None,
) -> Objective:
    if tuple(images.shape) != tuple(network.image_shape):
        raise InputError(
            f"images of {tuple(images.shape)} for a network of {tuple(network.image_shape)} (channels, h, w)"
        )
    objective = objective_of(network, options)
    if objective is None or (objective.classes is None) != (labels is None):
        raise InputError(
            f"loss {options.loss} {'without' if labels is None else 'with'} labels for {network.architecture}; "
            "expected cross-entropy and labels for a classifier, mse or pse without labels for an autoencoder, "
            "binary-cross-entropy and labels for a second head"
        )
    if objective.classes is not None and labels is not None:
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise InputError(f"labels {labels.dtype} {labels.shape}; expected int64 ({len(images)},), one per image")
        if labels.min() < 0 or labels.max() >= objective.classes:
            raise InputError(f"labels from {labels.min()} to {labels.max()}; expected 0 to {objective.classes - 1}")
    return objective


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array((seed, epoch), np.uint64)))


class _Training:
    """A training between two epochs."""

    def __init__(
        self,
        network: Network,
        images: TrainingImages,
        options: TrainingOptions,
        labels: npt.NDArray[np.int64] | None,
        groups: npt.NDArray[np.int64] | None,
        objective: Objective,
    ) -> None:
        self._network = network
        self._images = images
        self._options = options
        self._labels = None if labels is None else torch.from_numpy(labels)
        self._fingerprint = images.fingerprint
        if labels is not None:
            self._fingerprint += f" with labels {hashlib.sha256(labels.tobytes()).hexdigest()}"
        self._device = _device(options.device)
        network.to(self._device)
        self._objective = objective
        objective.terms.to(self._device)
        # The first epoch is 1: the number 0 is that of the split.
        self.fitted, self.held_out = validation_split(
            len(images), options.validation_share, groups, _generator(options.seed, 0)
        )
        if groups is not None:
            # Of the division itself: gone on with another, it would learn from what stops it.
            self._fingerprint += f" with validation on {hashlib.sha256(self.held_out.tobytes()).hexdigest()}"
        self._optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
        self.losses: list[tuple[float, float]] = []
        self.best = _copy(network)

    @property
    def best_epoch(self) -> int:
        """Number, from 1, of the first epoch with the lowest validation loss; 0 before any."""
        return 1 + min(range(len(self.losses)), key=lambda i: self.losses[i][1], default=-1)

    @property
    def patience_ran_out(self) -> bool:
        return len(self.losses) - self.best_epoch >= self._options.patience

    @property
    def done(self) -> bool:
        return self.patience_ran_out or len(self.losses) >= self._options.epochs

    @property
    def steps_left(self) -> int:
        per_epoch = sum(1 for _ in self._batches(self.fitted))
        return per_epoch * max(0, self._options.epochs - len(self.losses))

    @property
    def _contract(self) -> Contract:
        return {
            "architecture": self._network.architecture,
            "loss": self._options.loss_title,
            "batch size": self._options.batch_size,
            "learning rate": self._options.learning_rate,
            "validation share": self._options.validation_share,
            # Before the data, which a seed may have drawn.
            "seed": self._options.seed,
            "data": self._fingerprint,
        }

    def resume(self, path: Path) -> None:
        state = read_checkpoint(
            path,
            self._network,
            self._contract,
            learnt=self._objective.terms.state_dict(),
            epochs=self._options.epochs,
        )
        self._network.load_state_dict(state.network)
        set_moments(self._network, self._optimizer, state.moments)
        self._objective.terms.load_state_dict(state.objective)
        self.losses, self.best = state.epochs, state.best

    def save(self, path: Path) -> None:
        state = Checkpoint(
            epochs=self.losses,
            network=self._network.state_dict(),
            best=self.best,
            moments=moments_of(self._network, self._optimizer),
            objective=self._objective.terms.state_dict(),
        )
        write_checkpoint(path, state, self._contract)

    def epoch(self, tick: Callable[[], object]) -> None:
        """One more epoch.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        number = len(self.losses) + 1
        generator = _generator(self._options.seed, number)
        torch.manual_seed(int(generator.integers(1 << 63)))
        self._network.train()
        total = 0.0
        for indices in self._batches(generator.permutation(self.fitted)):
            self._optimizer.zero_grad()
            loss = self._batch_loss(indices)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._objective.after_step()
            total += loss.item() * len(indices)
            if not math.isfinite(total):
                raise FloatingPointError(f"the training loss became {total} in epoch {number}")
            tick()
        self._network.eval()
        with torch.no_grad():
            batches = self._batches(self.held_out)
            validation = sum(self._batch_loss(indices).item() * len(indices) for indices in batches)
        if not math.isfinite(validation):
            raise FloatingPointError(f"the validation loss became {validation} in epoch {number}")
        self.losses.append((total / len(self.fitted), validation / len(self.held_out)))
        if self.best_epoch == number:
            self.best = _copy(self._network)

    def _batch_loss(self, indices: Indices) -> Tensor:
        images = self._images.batch(indices).to(self._device)
        labels = None if self._labels is None else self._labels[torch.from_numpy(indices)].to(self._device)
        return self._objective.loss(images, labels)

    def _batches(self, order: Indices) -> Iterator[Indices]:
        size = self._options.batch_size
        starts = list(range(0, len(order), size))
        # Batch normalisation has nothing to normalise in a batch of one.
        if len(starts) > 1 and len(order) - starts[-1] == 1:
            starts.pop()
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            yield order[start:stop]


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise DeviceError(
            f"device {name} cannot be used by this torch: {reason}; expected cpu, or cuda on a GPU"
        ) from error
    return device
