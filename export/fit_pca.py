"""Good images to a bundle of principal components with Proximally Sensitive Error (Gudi and others, 2022, section 3.0.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.calibration import component_choice, principal_components
from flawline.calibration.component_choice import FEWEST_GOOD, Choice, Grid
from flawline.calibration.principal_components import PrincipalComponents
from flawline.calibration.resized_images import ResizedImages
from flawline.calibration.split import MINIMUM_FIT_IMAGES, split
from flawline.export.few_shot import read_few_shot
from flawline.export.fitting import Say
from flawline.export.labelled import read_labelled
from flawline.export.parity import ParityError
from flawline.export.pca_graph import ROUNDINGS, compose_reconstruction
from flawline.export.reconstruction import LAYOUT, Prepared, Reconstructor, finish, prepare
from flawline.export.reconstruction_options import PcaOptions
from flawline.export.reconstruction_parity import reference_of
from flawline.runtime import bundle as bundles
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.memory import require

if TYPE_CHECKING:
    import threadpoolctl
else:
    threadpoolctl = LazyModule("threadpoolctl", "pip install 'flawline[fit]'")

__all__ = ["PcaOptions", "fit_pca_bundle"]

_CHOOSING_SHARE = 5
# More would take time and tell no more of a median.
_MOST_TO_CHOOSE_BY = 50
# Any rate will do: what is set apart here stands behind no threshold.
_ANY_RATE = 0.5


def fit_pca_bundle(
    images: Sequence[Path], out: Path, options: PcaOptions, say: Say = lambda line: None
) -> bundles.Bundle:
    """Fits principal components, chooses how many and the sigma of the error, and writes the bundle.

    The bundle offers the maps `pse`, its default, and `error`.

    Args:
        images: Good images; each is read once to be checked, and three times to be fitted.
        out: Folder to make; must not exist.
        options: Everything else.
        say: Takes each line that tells what is being done.

    Returns:
        The bundle, as it was read back.

    Raises:
        InputError: Images, labelled images or options are not what they must be.
        ResourceError: Memory or disk would not suffice.
        ParityError: The detector does not score like its reference.
    """
    _require_fewer(options.components, len(images), "good images")
    if options.few_shot is not None:
        # A folder that is none of labelled images is known before any good image is read.
        read_labelled(options.few_shot)
    # One BLAS thread: the sums stay the same on any number of cores.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        prepared = prepare(images, out, options, say)
        labelled = _labelled(prepared, options, say)
        fitted, to_choose_by = _set_apart(prepared, options)
        if to_choose_by:
            say(
                f"{len(fitted)} of those to fit are fitted, {len(to_choose_by)} are kept out of the components to choose by"
            )
        _require_fewer_than_fitted(options.components, len(fitted), len(to_choose_by))
        grid = _grid(options, len(fitted))
        _require_memory(prepared.good.channels, options.image_size, grid.components[-1])
        components = principal_components.principal_components(
            prepared.resized(fitted, options.image_size), grid.components[-1], seed=options.seed
        )
        if labelled is not None:
            choice = component_choice.choose_by_labels(components, labelled.images, labelled.defective, grid)
            chosen = f"by {len(labelled.images)} labelled images, average precision {choice.value:.2f}"
        elif to_choose_by:
            good = prepared.resized(to_choose_by, options.image_size)
            choice = component_choice.choose_without_labels(components, good, grid)
            chosen = f"by {len(good)} good images that were not fitted"
        else:
            choice, chosen = Choice(grid.components[0], grid.sigmas[0], 1.0), "given"
        kept = components.first(choice.components)
        say(_describe(kept, choice.sigma, chosen))
        for line in _limits(choice, grid, options, len(fitted)):
            say(line)
        detector = Reconstructor(
            features=compose_reconstruction(kept, layout=LAYOUT, rounding=ROUNDINGS[0]),
            kind="pca",
            architecture="pca",
            components=choice.components,
            maps=("pse", "error"),
            sigma=choice.sigma,
            chosen=chosen,
            fitted_on=fitted,
            reference=reference_of(kept),
        )
        try:
            return finish(detector, prepared, out, options, say)
        except ParityError as error:
            exact = compose_reconstruction(kept, layout=LAYOUT, rounding=ROUNDINGS[1])
            if exact == detector.features:
                raise
            missed = str(error).removesuffix("; nothing was written")
            say(f"in float16 the components miss the gate ({missed}); all of them in float32 instead")
        return finish(replace(detector, features=exact), prepared, out, options, say)


class _Labelled(NamedTuple):
    """n images at the detector's size, and bool (n,)."""

    images: ResizedImages
    defective: npt.NDArray[np.bool_]


def _labelled(prepared: Prepared, options: PcaOptions, say: Say) -> _Labelled | None:
    """Draws the labelled images, and reads each once: one that cannot be read is known before the work, not after it."""
    if options.few_shot is None:
        return None
    drawn = read_few_shot(options.few_shot, options.shots, prepared.good, seed=options.seed, say=say)
    images = prepared.resized(drawn.paths, options.image_size)
    for _ in images:
        pass
    return _Labelled(images, drawn.defective)


def _set_apart(prepared: Prepared, options: PcaOptions) -> tuple[list[Path], list[Path]]:
    """The images that are fitted, and good ones to choose by where there is a choice and there are no labels."""
    if options.few_shot is not None or (options.components is not None and options.sigma is not None):
        return prepared.fitted, []
    count = len(prepared.fitted)
    wanted = min(max(FEWEST_GOOD, round(count / _CHOOSING_SHARE)), _MOST_TO_CHOOSE_BY)
    if count - wanted < MINIMUM_FIT_IMAGES:
        raise InputError(
            f"{count} good images to fit and to choose by; expected at least {wanted + MINIMUM_FIT_IMAGES}, or a choice by "
            "labelled images (--few-shot), or none (--components and --sigma)"
        )
    return split(
        prepared.fitted,
        false_reject_rate=_ANY_RATE,
        calibration_images=wanted,
        group_by=options.group_by,
        seed=options.seed,
    )


def _grid(options: PcaOptions, images: int) -> Grid:
    """What is tried: all that so many images and the size of them allow, or what is given."""
    default = Grid()
    return Grid(
        [count for count in default.components if count < images]
        if options.components is None
        else [options.components],
        [sigma for sigma in default.sigmas if sigma <= options.widest_sigma]
        if options.sigma is None
        else [options.sigma],
    )


def _require_fewer(
    components: int | None, images: int, which: str, hint: str = "lower --components or give more images"
) -> None:
    if components is not None and components >= images:
        raise InputError(f"{components} components of {images} {which}; expected fewer components than images: {hint}")


def _require_fewer_than_fitted(components: int | None, fitted: int, set_apart: int) -> None:
    """As above, where good images may be set apart: with components given, only sigma is left to choose by them."""
    which, hints = "images that are fitted", ["lower --components", "give more images"]
    if set_apart:
        which += f", {set_apart} of {fitted + set_apart} being set apart to choose sigma by"
    if components is not None and fitted <= components < fitted + set_apart:
        hints.append("give --sigma as well, which frees them")
    _require_fewer(components, fitted, which, " or ".join(hints))


def _require_memory(channels: int, size_px: int, components: int) -> None:
    """Refuses a fit and a choice that would not fit into memory, before the images are read for them."""
    pixels = channels * size_px**2
    held = (components + 1) * pixels * np.dtype(np.float32).itemsize
    require(
        # The fit has given back all but the components and the mean when the choice begins.
        max(principal_components.working_bytes(pixels, components), held + component_choice.working_bytes(pixels)),
        f"a fit of {components} components of {'RGB' if channels == 3 else 'grey'} images of {size_px} x {size_px} px",
        "lower --components or --image-size",
    )


def _limits(choice: Choice, grid: Grid, options: PcaOptions, images: int) -> Iterator[str]:
    """Where a choice ended at the last of what was tried, beyond which something better may lie."""
    if options.components is None and choice.components == grid.components[-1]:
        largest = f"{choice.components} is the largest number of components that"
        if choice.components < images - 1:
            yield (
                f"{largest} is tried, and more may do better: give --components, up to {images - 1}, and compare by "
                "`flawline evaluate`"
            )
        else:
            yield f"{largest} {images} images allow: more good images may do better"
    if options.sigma is None and choice.sigma == grid.sigmas[-1] and choice.sigma < options.widest_sigma:
        yield (
            f"sigma {choice.sigma:g} px is the widest that is tried, and a wider one may do better: give --sigma, up to "
            f"{options.widest_sigma:g}, and compare by `flawline evaluate`"
        )


def _describe(components: PrincipalComponents, sigma: float, chosen: str) -> str:
    channels, height, width = components.shape
    share = components.explained_variance.sum() / components.total_variance
    several = len(components.basis) > 1
    return (
        f"{len(components.basis)} principal component{'s' if several else ''} of {'grey' if channels == 1 else 'RGB'} images of {width} x {height} px, "
        f"which hold{'' if several else 's'} {share:.1%} of their variance; sigma {sigma:g} px; {chosen}"
    )
