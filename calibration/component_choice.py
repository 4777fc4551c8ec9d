"""How many principal components and how wide a Gaussian: from a few labelled images, or from good ones alone.

Images are worked through one by one: the memory that a choice takes does not grow with their number.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from flawline.calibration.principal_components import Images, PrincipalComponents
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule
from flawline.runtime.kernels import proximally_sensitive_error
from flawline.runtime.progress import progress

if TYPE_CHECKING:
    from sklearn import metrics
else:
    metrics = LazyModule("sklearn.metrics", "pip install 'flawline[fit]'")

Scores = npt.NDArray[np.float64]

FEWEST_GOOD = 5
"""Good images that are needed to choose without labels."""

_TIE = 1e-9
# Of a score that something is divided by: good images may be reconstructed exactly.
_SMALLEST = float(np.finfo(np.float32).tiny)
_FLAW_SHARE = 10
_SMALLEST_FLAW_PX = 3.0
_PLACES = 6
# Of float32, as large as an image: it, what the components hold of it, nothing to compare it with, its error, and two that are
# in the making or not yet given back.
_ARRAYS = 6


@dataclass(frozen=True)
class Grid:
    """What is tried.

    Attributes:
        components: Numbers of principal components, rising.
        sigmas: Standard deviations of the Gaussian in pixels, rising; 0 is the squared error.
    """

    components: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128)
    sigmas: Sequence[float] = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

    def __post_init__(self) -> None:
        """Refuses what cannot be tried."""
        for name, values in (("components", self.components), ("sigmas", self.sigmas)):
            if not len(values) or list(values) != sorted(set(values)) or not values[0] >= (name == "components"):
                raise InputError(f"{name} {list(values)} to try; expected numbers that rise, each once, none negative")

    def up_to(self, most: int) -> "Grid":
        """The same with no more components than were fitted.

        Raises:
            InputError: All of them are more.
        """
        kept = [count for count in self.components if count <= most]
        if not kept:
            raise InputError(f"{list(self.components)} components to try of {most} that were fitted; expected fewer")
        return Grid(kept, self.sigmas)


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        components: Principal components.
        sigma: Standard deviation of the Gaussian, px.
        value: What made it best: the average precision, or the ratio of `choose_without_labels`.
    """

    components: int
    sigma: float
    value: float


def grid_scores(fitted: PrincipalComponents, images: Images, grid: Grid) -> Scores:
    """Scores of images for everything on the grid: the maximum of the proximally sensitive error.

    Args:
        fitted: As many components as the largest number on the grid, or more.
        images: N images, uint8 (height, width) or (height, width, channels) each; read once.
        grid: What is tried.

    Returns:
        float64 (numbers of components, sigmas, N).

    Raises:
        InputError: Images of another size, or more components than were fitted.
    """
    return _grid_maxima(fitted, (fitted.centred(image[None])[0] for image in images), len(images), grid)


def working_bytes(pixels: int) -> int:
    """The memory that a choice takes at the most beside the principal components, however many images there are.

    Args:
        pixels: Numbers D of an image, all channels together.

    Returns:
        Bytes: 6 images of float32.
    """
    return _ARRAYS * pixels * np.dtype(np.float32).itemsize


def choose_by_labels(
    fitted: PrincipalComponents, images: Images, defective: npt.NDArray[np.bool_], grid: Grid | None = None
) -> Choice:
    """The point on the grid with the best average precision on a few labelled images (Gudi and others, 2022, 4.1).

    Nothing else than these images decides, and none of them may have been fitted on. Few images leave many equals: on solar
    cells, five of a kind were told apart without an error by a third of the grid. Of equals the one wins at which the smallest
    score of a defective image is the largest multiple of the largest one of a good image: then the one with the fewest
    components and the smallest sigma.

    Args:
        fitted: The principal components of good images.
        images: n images, uint8 (height, width) or (height, width, channels) each, read once; five of a kind in the paper.
        defective: bool (n,), True for an image with a flaw.
        grid: What is tried; as far as components were fitted.

    Raises:
        InputError: The images are all good or all defective, or of another size.
        MissingExtraError: scikit-learn is not installed.
    """
    if defective.shape != (len(images),):
        raise InputError(f"{len(images)} labelled images and labels of shape {defective.shape}; expected one for each")
    bad = int(defective.sum())
    if not 0 < bad < len(images):
        raise InputError(
            f"{len(images)} labelled images, {bad} of them defective; expected good and defective ones to choose by"
        )
    grid = (grid or Grid()).up_to(len(fitted.basis))
    scores = grid_scores(fitted, images, grid)
    values = [[metrics.average_precision_score(defective, of_sigma) for of_sigma in row] for row in scores]
    apart = scores[..., defective].min(axis=2) / np.maximum(scores[..., ~defective].max(axis=2), _SMALLEST)
    return _best(np.array(values, np.float64), grid, apart)


def choose_without_labels(
    fitted: PrincipalComponents, good: Images, grid: Grid | None = None, *, flaw_px: float | None = None
) -> Choice:
    """The point on the grid at which a small flaw of given contrast stands out most from good images.

    A disc one grey level brighter than its surroundings is what a flaw is taken for: the detector is linear up to the
    square, so that its answer to the disc, whatever the image below, is the disc less its own reconstruction, filtered.
    More components leave less of good images, and less of the flaw as well; a wider Gaussian averages more noise away,
    and spreads the flaw. The ratio of the two, as of a matched filter, weighs one against the other::

        value = median over places of max |(I - B^T B) disc * k| / median over good images of max |residual * k|

    Of equals the one with the fewest components wins, then the one with the smallest sigma.

    Args:
        fitted: The principal components of good images.
        good: n held-out good images, uint8 (height, width) or (height, width, channels) each, read once; none of them fitted on.
        grid: What is tried; as far as components were fitted.
        flaw_px: Diameter of the disc; a tenth of the image's shorter side if None, but at least 3.

    Raises:
        InputError: Fewer than 5 good images, images of another size, or a flaw that does not fit into them.
    """
    if len(good) < FEWEST_GOOD:
        raise InputError(f"{len(good)} held-out good images; expected at least {FEWEST_GOOD} to choose by")
    grid = (grid or Grid()).up_to(len(fitted.basis))
    flaws = np.sqrt(_grid_maxima(fitted, _discs(fitted.shape, flaw_px), _PLACES**2, grid, "flaw"))
    normal = np.sqrt(grid_scores(fitted, good, grid))
    # Good images that are reconstructed exactly leave any flaw infinitely far out.
    noise = np.maximum(np.median(normal, axis=2), _SMALLEST)
    return _best(np.median(flaws, axis=2) / noise, grid)


def _discs(shape: tuple[int, int, int], diameter_px: float | None) -> Iterator[npt.NDArray[np.float32]]:
    """Discs of 1 on 0, in all channels, at the crossings of six rows and six columns: 36 of float32 (D,)."""
    _, height, width = shape
    diameter = max(min(height, width) / _FLAW_SHARE, _SMALLEST_FLAW_PX) if diameter_px is None else diameter_px
    if not 1 <= diameter <= min(height, width) / 2:
        raise InputError(f"a flaw of {diameter} px in images of {width} x {height}; expected 1 px to half of a side")
    # Whole pixels for centres, so that all discs are of the same pixels.
    rows, columns = (((np.arange(_PLACES) + 0.5) * side / _PLACES).astype(np.int32) for side in (height, width))
    y, x = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)
    for row in rows:
        for column in columns:
            disc = np.broadcast_to((y - row) ** 2 + (x - column) ** 2 <= (diameter / 2) ** 2, shape)
            yield disc.reshape(-1).astype(np.float32)


def _grid_maxima(
    fitted: PrincipalComponents,
    centred: Iterable[npt.NDArray[np.float32]],
    images: int,
    grid: Grid,
    unit: str = "image",
) -> Scores:
    """Maxima of the errors of so many centred images, float32 (D,) each, which lose what the components hold."""
    fitted.first(grid.components[-1])
    none = np.zeros((1, *fitted.shape), np.float32)
    scores = np.empty((len(grid.components), len(grid.sigmas), images))
    for index, residual in enumerate(progress(centred, total=images, label="choosing", unit=unit)):
        done = 0
        for row, count in enumerate(grid.components):
            part = fitted.basis[done:count]
            residual -= (part @ residual) @ part
            done = count
            for column, sigma in enumerate(grid.sigmas):
                error = proximally_sensitive_error(residual.reshape(none.shape), none, sigma)
                scores[row, column, index] = error.maximum[0]
    return scores


def _best(values: Scores, grid: Grid, apart: Scores | None = None) -> Choice:
    """The largest value; of equals the one that is further apart, then the first by components and by sigma."""
    equals = values >= values.max() - _TIE
    first = int(np.argmax(equals if apart is None else np.where(equals, apart, -1.0)))
    row, column = divmod(first, values.shape[1])
    return Choice(grid.components[row], grid.sigmas[column], float(values[row, column]))
