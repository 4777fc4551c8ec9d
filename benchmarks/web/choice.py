"""What resolution, layers, shading, margin and smoothing give, found on strips that a fold fits, never on those it tests."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from flawline.benchmarks.web.features import Conditions


@dataclass(frozen=True)
class Variant:
    """Everything that may be chosen.

    Attributes:
        smoothing_px: Standard deviation of the map's Gaussian, pixels of the network's input.
        margin_px: Masked inside each edge of the web, camera pixels.
        conditions: How strips reach the network.
        layers: Numbers of the layers that are used.
    """

    smoothing_px: float
    margin_px: int
    conditions: Conditions
    layers: tuple[int, ...]

    def __str__(self) -> str:
        """In words."""
        layers = " ".join(map(str, self.layers))
        return f"{self.conditions}, layers {layers}, margin {self.margin_px} px, smoothing {self.smoothing_px:g} px"


class Tried(NamedTuple):
    """A variant that a fold looked at.

    Attributes:
        part: What it differs in from the one it was compared with; `start` for the first.
        variant: What was tried.
        auroc: Of tiles of strips that the fold fits, mean over two halves of them.
    """

    part: str
    variant: Variant
    auroc: float


class Choice(NamedTuple):
    """What a fold chose.

    Attributes:
        tried: In order.
        variant: The best of them.
    """

    tried: tuple[Tried, ...]
    variant: Variant


def choose(start: Variant, others: dict[str, Sequence[Any]], measure: Callable[[Variant], float]) -> Choice:
    """Changes one part after the other and keeps what is better.

    Args:
        start: The first variant.
        others: For each part, in the order of `Variant`'s fields, what else to try.
        measure: AUROC of a variant.
    """
    best = Tried("start", start, measure(start))
    tried = [best]
    for part in (field.name for field in fields(Variant)):
        candidates = [
            Tried(part, variant, measure(variant)) for variant in _changed(best.variant, part, others.get(part, ()))
        ]
        tried += candidates
        best = max([best, *candidates], key=lambda one: one.auroc)
    return Choice(tuple(tried), best.variant)


def _changed(variant: Variant, part: str, values: Sequence[Any]) -> Iterator[Variant]:
    changed = (replace(variant, **{part: value}) for value in values)
    return (one for one in changed if one != variant)


def without_one(layers: int) -> list[tuple[int, ...]]:
    """All layers but one, for each that can be left out."""
    if layers == 1:
        return []
    return [tuple(layer for layer in range(layers) if layer != left_out) for left_out in range(layers)]
