"""Plots of results, as PNG files; one look for all, readable without colour vision."""

import atexit
import functools
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import matplotlib as mpl
    from matplotlib import figure as matplotlib_figure
else:
    mpl = LazyModule("matplotlib", "pip install 'flawline[bench]'")
    matplotlib_figure = LazyModule("matplotlib.figure", "pip install 'flawline[bench]'")

# Okabe and Ito (2008), "Color Universal Design": told apart with any common colour vision; markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "xx")
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
        label: Name in the legend.
        x: Where.
        y: What, the same length.
        spread: Half the length of the error bars; None for none.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None


def accuracy_against_dimension(
    path: Path, curves: Sequence[Curve], *, title: str, metric: str, reference: tuple[str, float] | None = None
) -> None:
    """Accuracy of each projection kind against the projected dimension, with error bars.

    Args:
        path: PNG file to write.
        curves: One per projection kind; `spread` is the standard deviation over seeds.
        title: Title, with data and network.
        metric: Name of the metric, for the axis.
        reference: Label and value of a horizontal line, such as all channels without projection.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    with figure_file(path) as figure:
        axes = figure.add_subplot()
        shift = np.linspace(-0.012, 0.012, max(len(curves), 2))
        for index, curve in enumerate(curves):
            # A small multiplicative shift keeps the error bars of different kinds apart.
            x = np.asarray(curve.x) * (1 + shift[index])
            axes.errorbar(x, curve.y, curve.spread, label=curve.label, capsize=3, **_look(index))
        if reference is not None:
            axes.axhline(reference[1], color="#555555", linestyle=":", linewidth=1.4, label=reference[0])
        _dimension_axis(axes, curves)
        axes.set_ylabel(metric)
        axes.set_title(title)
        axes.legend(loc="lower right")


def cost_against_dimension(path: Path, latency_ms: Sequence[Curve], factor_mb: Sequence[Curve], *, title: str) -> None:
    """Latency above, bytes of the whitening factors below, both against the projected dimension.

    Args:
        path: PNG file to write.
        latency_ms: Curves in milliseconds.
        factor_mb: Curves in megabytes (10^6 bytes).
        title: Title, with machine and map size.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    with figure_file(path, height=6.4) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, curves, label in ((upper, latency_ms, "median latency / ms"), (lower, factor_mb, "factors / MB")):
            for index, curve in enumerate(curves):
                axes.errorbar(curve.x, curve.y, curve.spread, label=curve.label, capsize=3, **_look(index))
            axes.set_ylabel(label)
            axes.set_yscale("log")
            _plain_decimals(axes)
            axes.legend(loc="best")
        _dimension_axis(lower, [*latency_ms, *factor_mb])
        upper.set_title(title)


def accuracy_against_time(
    path: Path, curves: Sequence[Curve], labels: Sequence[Sequence[str]], *, title: str, metric: str
) -> None:
    """What is worth its time: accuracy against the time of a frame, one point per dimension.

    Args:
        path: PNG file to write.
        curves: x in milliseconds, y accuracy.
        labels: Of the points, for each curve as many as it has.
        title: Title, with data and network.
        metric: Name of the metric, for the axis.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    with figure_file(path) as figure:
        axes = figure.add_subplot()
        for index, (curve, names) in enumerate(zip(curves, labels, strict=True)):
            axes.plot(curve.x, curve.y, label=curve.label, **_look(index))
            # Two engines may well take the same time: the labels of the one stand above the points, of the other below.
            away = (0, -13) if index % 2 else (0, 6)
            for x, y, name in zip(curve.x, curve.y, names, strict=True):
                axes.annotate(name, (x, y), textcoords="offset points", xytext=away, ha="center", fontsize=8)
        axes.set_xlim(left=0)
        axes.margins(y=0.12)
        axes.set_xlabel("median time of a frame / ms")
        axes.set_ylabel(metric)
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=3)


def peak_against_line(path: Path, curves: Sequence[Curve], *, seam: int, title: str) -> None:
    """Peak of a flaw over its place along the web.

    Args:
        path: PNG to write.
        curves: Peak by first line of the flaw.
        seam: Line at which one strip ends and the next begins.
        title: Above the plot.
    """
    with figure_file(path) as figure:
        axes = figure.subplots()
        for index, curve in enumerate(curves):
            axes.plot(curve.x, curve.y, label=curve.label, **_look(index), markevery=max(1, len(curve.x) // 16))
        axes.axvline(seam, color="#999999", linewidth=1.0, linestyle="--")
        axes.set(title=title, xlabel="first line of the flaw", ylabel="peak of the anomaly map")
        axes.legend()


def time_by_stage(path: Path, groups: Sequence[str], stages: Mapping[str, Sequence[float]], *, title: str) -> None:
    """Where the time goes: one stacked bar per group.

    Args:
        path: PNG file to write.
        groups: Names of the bars.
        stages: Milliseconds of each stage, as many as there are groups, lowest first.
        title: Title, with precision and engine.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    with figure_file(path) as figure:
        axes = figure.add_subplot()
        bottom = np.zeros(len(groups))
        for index, (name, taken) in enumerate(stages.items()):
            axes.bar(groups, taken, 0.7, bottom=bottom, label=name, color=COLOURS[index], hatch=HATCHES[index % 4])
            bottom += np.asarray(taken)
        axes.set_ylabel("median time / ms")
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=len(stages))


def roc(path: Path, defective: NDArray[np.bool_], scores: NDArray[np.float64], *, title: str, auroc: float) -> None:
    """Receiver operating characteristic over images.

    Args:
        path: PNG file to write.
        defective: bool (n,).
        scores: float (n,), higher is more anomalous.
        title: Title, with data and network.
        auroc: Area, for the legend.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    caught = np.append(0, np.cumsum(defective[order])[last_of_tie]) / defective.sum()
    rejected = np.append(0, np.cumsum(~defective[order])[last_of_tie]) / (~defective).sum()
    with figure_file(path, width=5.2, height=4.8) as figure:
        axes = figure.add_subplot()
        axes.plot(rejected, caught, color=COLOURS[0], label=f"AUROC {auroc:.4f}")
        axes.plot([0, 1], [0, 1], color="#999999", linestyle=":", linewidth=1.2, label="chance")
        axes.set_xlabel("good images rejected (share)")
        axes.set_ylabel("defective images caught (share)")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_title(title)
        axes.legend(loc="lower right")


def score_histogram(path: Path, scores: Mapping[str, NDArray[np.float64]], threshold: float, *, title: str) -> None:
    """Distribution of the scores by label, with the threshold.

    Args:
        path: PNG file to write.
        scores: Scores by label.
        threshold: Scores above it are rejected.
        title: Title, with data and network.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    everything = np.concatenate(list(scores.values()))
    edges = np.linspace(everything.min(), np.percentile(everything, 99.5) + 1e-9, 41)
    with figure_file(path) as figure:
        axes = figure.add_subplot()
        for index, (label, values) in enumerate(scores.items()):
            # The last bin takes what lies beyond it, so that no image is missing from the picture.
            counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
            axes.stairs(
                counts / len(values),
                edges,
                fill=True,
                alpha=0.45,
                color=COLOURS[index],
                label=f"{label} ({len(values)})",
                hatch=HATCHES[index % 3],
                edgecolor=COLOURS[index],
            )
        axes.axvline(threshold, color="#000000", linestyle="--", linewidth=1.4, label=f"threshold {threshold:.4g}")
        axes.set_xlabel("anomaly score (Mahalanobis distance; last bin: and above)")
        axes.set_ylabel("share of images")
        axes.set_title(title)
        axes.legend(loc="upper right")


def _look(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def _plain_decimals(axes: Any) -> None:
    """Labels a logarithmic y axis with plain decimals, as many of them as its range leaves room for."""

    def minor(value: float, _: int) -> str:
        low, high = axes.get_ylim()
        # Beyond a decade all nine ticks of each would run into each other.
        return f"{value:g}" if high < 10 * low or f"{value:e}"[0] in "25" else ""

    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(minor)


def _dimension_axis(axes: Any, curves: Sequence[Curve]) -> None:
    dimensions = sorted({x for curve in curves for x in curve.x})
    axes.set_xscale("log", base=2)
    axes.set_xticks(dimensions, [f"{x:g}" for x in dimensions], minor=False)
    if len(dimensions) > 1 and min(math.log2(b / a) for a, b in itertools.pairwise(dimensions)) < 0.45:
        axes.tick_params(axis="x", labelsize=9)
    axes.set_xlabel("projected dimension d")


@functools.cache
def _keep_to_ourselves() -> None:
    """Gives matplotlib a temporary folder for its font list, which it would leave in the user's cache."""
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="flawline-matplotlib-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["MPLCONFIGDIR"] = folder


@contextmanager
def figure_file(path: Path, *, width: float = 7.0, height: float = 4.4) -> Iterator[Any]:
    """Gives a figure to draw on, and writes it.

    Args:
        path: PNG file to write.
        width: In inches.
        height: In inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: The file cannot be written.
    """
    # A figure of its own, without pyplot: no window system, no global state, and nothing left open.
    _keep_to_ourselves()
    with mpl.rc_context(STYLE):
        figure = matplotlib_figure.Figure(figsize=(width, height))
        yield figure
        try:
            figure.savefig(path, format="png", metadata={"Software": "flawline"})
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; choose a folder that exists") from error
