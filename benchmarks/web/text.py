"""What `bench web` prints."""

from collections.abc import Sequence

from flawline.benchmarks.tables import table
from flawline.benchmarks.web.choice import Choice
from flawline.benchmarks.web.study import RollResult


def describe(result: RollResult, layers: Sequence[str]) -> str:
    """The tables of a roll, with a final newline."""
    good, defective = result.strips
    tiles = " and ".join(f"{good} good and {bad} bad" for good, bad in result.tiles)
    lines = [
        f"roll {result.roll}: {good} good and {defective} defective strips; tiles tested in each fold: {tiles}",
        "",
    ]
    rows = [
        (
            row.variant,
            row.precision,
            row.dimension,
            row.components,
            str(row.auroc),
            ", ".join(f"{one:.3f}" for one in row.auroc.seeds),
        )
        for row in result.rows
    ]
    lines.append(table(("variant", "network", "d", "K", "tile AUROC", "of each seed"), rows))
    for number, choice in enumerate(result.choices):
        lines += ["", f"fold {number}, tile AUROC on validation strips; * is chosen", "", _tried(choice, layers)]
    return "\n".join(lines) + "\n"


def _tried(choice: Choice, layers: Sequence[str]) -> str:
    rows = [
        (
            str(tried.variant.conditions),
            " ".join(layers[layer] for layer in tried.variant.layers),
            f"{tried.variant.margin_px} px",
            f"{tried.variant.smoothing_px:g} px",
            f"{tried.auroc:.3f}" + (" *" if tried.variant == choice.variant else "  "),
        )
        for tried in choice.tried
    ]
    return table(("conditions", "layers", "margin", "smoothing", "AUROC"), rows)
