"""Kinds of anomaly map that are made of an image and its reconstruction."""

from typing import Literal, get_args

MapKind = Literal["error", "pse", "saliency", "saliency-squared"]
"""The squared error; Proximally Sensitive Error; the slope of the mean squared error by each pixel; the square of that."""

MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)

SALIENCIES: tuple[MapKind, ...] = ("saliency", "saliency-squared")
"""Those for which the network is run backwards as well."""
