"""What was measured of a classifier, as text."""

from collections.abc import Sequence

from flawline.benchmarks.classification import Agreement, ClassifierEvaluation
from flawline.benchmarks.tables import table
from flawline.runtime.bundle import ClassifierManifest
from flawline.runtime.plain_text import plain

_CONFUSIONS = 5
_NAMES = 10


def classifier_text(manifest: ClassifierManifest, found: ClassifierEvaluation) -> str:
    """Lines to print, the last one ended."""
    images = found.every.images
    others = [kind.kind for kind in found.kinds if kind.kind not in found.correct]
    none = f", {found.others} of none of them ({_listed(others)})" if others else ""
    lines = [
        f"{plain(manifest.network.name)}, {len(manifest.classifier.classes)} classes, score {manifest.kind}",
        f"{found.images} images: {images} of {_counted(len(found.correct))}{none}",
    ]
    if found.absent:
        lines.append(f"no images of {_listed(found.absent)}: nothing here is about these classes")
    lines += ["", table(("", "all", "accepted"), _agreements(found.every, found.accepted))]
    named = [pair for pair in found.confusions if pair.images > 1][:_CONFUSIONS]
    if named:
        pairs = ", ".join(f"{plain(one.kind)} for {plain(one.taken_for)} ({one.images} of {one.of})" for one in named)
        lines += ["", f"most often confused: {pairs}"]
    lines.append("")
    if found.novelty is None:
        lines.append("all images are of classes: no AUROC, average precision or F1 score of telling others from them")
        missed = ""
    else:
        of = found.novelty
        lines += [
            f"out of distribution, the positives ({of.prevalence:.1%} of the images)",
            f"image AUROC              {of.image_auroc:.4f}",
            f"image average precision  {of.average_precision:.4f}",
            f"F1 at the threshold      {of.f1:.4f} (rejecting every image: {of.f1_of_all:.4f})",
            "",
        ]
        missed = f", {found.misses} of {found.others} of none passed"
    lines.append(
        f"threshold {found.threshold:.6g}: {found.false_rejects} of {images} images of the classes rejected "
        f"({found.false_rejects / images:.1%}; {manifest.threshold.false_reject_rate:.1%} was asked for){missed}"
    )
    if found.beyond is not None:
        of_none = f", {found.others - found.beyond.others} of {found.others} of none passed" if found.others else ""
        lines.append(
            f"threshold 1, beyond every class: {found.beyond.classes} of {images} images of the classes rejected "
            f"({found.beyond.classes / images:.1%}){of_none}"
        )
    if manifest.network.weights.random:
        lines.append("the network has random weights: it measures time, these accuracies mean nothing")
    rows = [
        (
            plain(kind.kind),
            kind.images,
            found.correct.get(kind.kind, ""),
            kind.rejected,
            f"{kind.median_score:.4g}",
            "" if kind.image_auroc is None else f"{kind.image_auroc:.4f}",
        )
        for kind in found.kinds
    ]
    headers = ("folder", "images", "right class", "rejected", "median score", "AUROC against classes")
    return "\n".join([*lines, "", table(headers, rows)]) + "\n"


def _agreements(every: Agreement, accepted: Agreement | None) -> list[tuple[str, str, str]]:
    def row(name: str, field: str, form: str) -> tuple[str, str, str]:
        return (
            name,
            format(getattr(every, field), form),
            "" if accepted is None else format(getattr(accepted, field), form),
        )

    return [
        ("images of classes", str(every.images), "0" if accepted is None else str(accepted.images)),
        row("accuracy", "accuracy", ".4f"),
        row("macro F1", "macro_f1", ".4f"),
    ]


def _counted(classes: int) -> str:
    return f"{classes} class{'es' * (classes > 1)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(plain(name) for name in names[:_NAMES]) + more
