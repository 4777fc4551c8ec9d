"""Bundles in several precisions from the same images, for which the float detector is fitted only once."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from flawline.export.addition import add_precision, payload_of
from flawline.export.fit import FitOptions, fit_bundle
from flawline.export.fitting import Say
from flawline.runtime import bundle as bundles
from flawline.runtime.precisions import Precision


def fit_from_float(
    floats: Path, precision: Precision, images: Sequence[Path], out: Path, *, threads: int, say: Say = lambda line: None
) -> bundles.Bundle:
    """Writes what `fit_bundle` writes for a precision, from a bundle that it wrote for fp32.

    Args:
        floats: Bundle in fp32.
        precision: Of the bundle to make, another one.
        images: What the float detector was fitted on.
        out: Folder to make; must not exist.
        threads: Threads that compute.
        say: Takes each line that tells what is being done.

    Returns:
        The bundle, which holds that precision alone.

    Raises:
        See `add_precision`.
    """
    with tempfile.TemporaryDirectory(prefix="flawline-precision-", dir=out.parent) as folder:
        both = add_precision(floats, precision, images, Path(folder) / "both", threads=threads, say=say)
        alone = both.select(precision)
        return bundles.write(out, msgspec.structs.replace(alone.manifest, variants={}), *payload_of(alone))


def fit_each(
    images: Sequence[Path], folder: Path, options: FitOptions, precisions: Sequence[Precision], say: Say
) -> dict[Precision, Path]:
    """Writes one bundle per precision.

    Args:
        images: Good images.
        folder: To write to; must exist and hold none of these bundles.
        options: How to fit, in fp32.
        precisions: Of the network.
        say: Takes each line that tells what is being done.

    Returns:
        Folders of the bundles.

    Raises:
        See `fit_bundle`.
    """
    floats = folder / f"{options.dimension}-fp32.flaw"
    fit_bundle(images, floats, options, say)
    fitted: dict[Precision, Path] = {}
    for precision in precisions:
        fitted[precision] = folder / f"{options.dimension}-{precision}.flaw"
        if precision != "fp32":
            fit_from_float(floats, precision, images, fitted[precision], threads=options.threads, say=say)
    return fitted
