"""Kinds of anomaly map, and of score, of the detectors that offer several."""

from typing import Literal, get_args

ReconstructionMapKind = Literal["error", "pse", "saliency", "saliency-squared"]
"""Of an image and its reconstruction: the squared error; Proximally Sensitive Error; the slope of the mean squared error by
each pixel; the square of that."""

ScoreKind = Literal["mahalanobis", "head"]
"""Of a classifier, whose map is the score alone: the smallest Mahalanobis distance to a class, in thresholds of that class;
1 less the probability of being normal, by a second head."""

MapKind = Literal[ReconstructionMapKind, ScoreKind]

RECONSTRUCTION_MAP_KINDS: tuple[ReconstructionMapKind, ...] = get_args(ReconstructionMapKind)

MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)

SALIENCIES: tuple[ReconstructionMapKind, ...] = ("saliency", "saliency-squared")
"""Those for which the network is run backwards as well."""


def output_of(kind: ReconstructionMapKind) -> Literal["reconstruction", "saliency"]:
    """Name of the one output of the network that a map of this kind is made of."""
    return "saliency" if kind in SALIENCIES else "reconstruction"
