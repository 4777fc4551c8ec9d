"""Figures 5 and 6 of the paper on center loss: curves of both tests, and deep features in a plane."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flawline.benchmarks.paper.center_loss_study import Drawn
from flawline.benchmarks.plots import figure_file

_SHOWN = 2000
_DASHES = ("-", "--", ":", "-.")


def picture_of_curves(path: Path, drawn: Mapping[float, Drawn], *, title: str) -> None:
    """Draws receiver operating characteristics, a panel per test and a curve per lambda.

    Args:
        path: PNG file to write.
        drawn: By lambda.
        title: Above all.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    tests = list(next(iter(drawn.values())).curves)
    with figure_file(path, width=8.4, height=4.4) as figure:
        panels = figure.subplots(1, len(tests), squeeze=False)[0]
        for axes, test in zip(panels, tests, strict=True):
            for index, (center_weight, one) in enumerate(drawn.items()):
                style = _DASHES[index % len(_DASHES)]
                axes.plot(*one.curves[test], linestyle=style, label=f"lambda {center_weight:g}")
            axes.set(xlabel="normal images rejected (share)", ylabel="anomalous images caught (share)", title=test)
            axes.legend(loc="lower right")
        figure.suptitle(title)


def picture_of_features(path: Path, drawn: Mapping[float, Drawn], classes: Sequence[str], *, title: str) -> None:
    """Draws deep features along the first two principal components of the normal ones, a panel per lambda.

    Args:
        path: PNG file to write.
        drawn: By lambda.
        classes: Names of the normal classes.
        title: Above all.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    with figure_file(path, width=4.2 * len(drawn), height=4.8) as figure:
        panels = figure.subplots(1, len(drawn), squeeze=False)[0]
        for axes, (center_weight, one) in zip(panels, drawn.items(), strict=True):
            shown = np.random.default_rng(0).permutation(len(one.normal))[:_SHOWN]
            axes.scatter(
                *one.normal[shown].T, c=one.labels[shown], s=4, cmap="tab10", vmin=0, vmax=max(9, len(classes) - 1)
            )
            strange = np.random.default_rng(0).permutation(len(one.anomalous))[:_SHOWN]
            axes.scatter(*one.anomalous[strange].T, c="#000000", marker="x", s=6, linewidths=0.5, label="anomalous")
            axes.scatter(*one.zero[:, None], c="#D55E00", marker="+", s=160, linewidths=2.5, label="zero vector")
            for index, name in enumerate(classes):
                own = one.normal[one.labels == index]
                axes.annotate(name, own.mean(0), ha="center", va="center", fontweight="bold")
            axes.set(xlabel="first principal component", ylabel="second", title=f"lambda {center_weight:g}")
            axes.legend(loc="best", fontsize=8)
        figure.suptitle(title)
