"""How often two maps have how many of their largest pixels in common, like figure 2 of Feeney and Hughes (2021)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flawline.benchmarks.plots import COLOURS, HATCHES, figure_file
from flawline.runtime.errors import InputError


def picture_of_agreement(path: Path, frequencies: Mapping[str, Sequence[float]], *, title: str) -> None:
    """Draws bars side by side.

    Args:
        path: PNG file to write.
        frequencies: Share of the images with 0 to K pixels in common, by group of images.
        title: Above all.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: There is no group, groups are of different K, or the file cannot be written.
    """
    lengths = {len(shares) for shares in frequencies.values()}
    if len(lengths) != 1:
        raise InputError(f"groups with {sorted(lengths)} shares; expected at least one group, and equally many in each")
    (length,) = lengths
    width = 0.8 / len(frequencies)
    with figure_file(path) as figure:
        axes = figure.add_subplot()
        for index, (name, shares) in enumerate(frequencies.items()):
            places = [number + (index - (len(frequencies) - 1) / 2) * width for number in range(length)]
            look = {"color": COLOURS[index % len(COLOURS)], "hatch": HATCHES[index % len(HATCHES)]}
            axes.bar(places, shares, width, label=name, **look)
        axes.set(xticks=range(length), xlabel=f"of {length - 1} pixels in common", ylabel="share of images")
        axes.set_title(title)
        axes.legend()
