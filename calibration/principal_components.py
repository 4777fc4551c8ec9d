"""Principal components of good images, out of core: three readings of the images, memory that does not grow with them.

Source: Halko, Martinsson, Shkolnisky, Tygert, "An algorithm for the principal component analysis of large data sets"
(2011): subspace iteration on twice as many directions as are wanted. It starts from good images drawn at random, whose
span holds most of the variance already, and ends with the Nystrom approximation of the covariance (Tropp, Yurtsever,
Udell, Cevher, 2017), which saves one more reading. scikit-learn's IncrementalPCA reads once, but factorises a matrix of
float64 for every batch: measured on solar cells with batches of as many images, it took three times the processor time and
twice the memory, and left ten times as much of the images above what the best components leave.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.memory import require
from flawline.runtime.progress import progress

Image = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]

_ITERATIONS = 2
_OVERSAMPLING = 2
# Directions by pixels in float32, at the most at once: two of them in use, the rest inside products and factorisations.
_MATRICES = 9
_WORKING_BYTES = 64 << 20
# Of the mean variance of a direction: what keeps the factorisation going where images span fewer directions.
_SHIFT = 1e-6


class Images(Protocol):
    """Images that can be read again and again: a list, a mapped array (N, height, width), or files read one by one."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __iter__(self) -> Iterator[Image]:
        """Reads each, uint8 (height, width) or (height, width, channels), always in the same order."""
        ...


@dataclass(frozen=True)
class PrincipalComponents:
    """What good images look like: their mean, and the directions in which they differ.

    Attributes:
        mean: float32 (D,), in units of the pixels, D = channels * height * width, channel by channel and row by row.
        basis: float32 (k, D), orthonormal rows by falling variance; in each, the number of largest size is positive.
        explained_variance: float64 (k,), of the images along each, in squared units of the pixels.
        total_variance: Sum of the variances of all pixels.
        shape: Channels, height and width.
    """

    mean: npt.NDArray[np.float32]
    basis: Matrix
    explained_variance: npt.NDArray[np.float64]
    total_variance: float
    shape: tuple[int, int, int]

    def first(self, components: int) -> "PrincipalComponents":
        """The same with the first components alone.

        Raises:
            InputError: There are not as many.
        """
        if not 1 <= components <= len(self.basis):
            raise InputError(f"{components} components; expected 1 to {len(self.basis)}, as many as were fitted")
        kept = self.explained_variance[:components]
        return replace(self, basis=self.basis[:components], explained_variance=kept)

    def centred(self, images: npt.NDArray[np.uint8]) -> Matrix:
        """Images less the mean.

        Args:
            images: uint8 (N, height, width) or (N, height, width, channels).

        Returns:
            float32 (N, D).

        Raises:
            InputError: Images of another size.
        """
        channels, height, width = self.shape
        if images.dtype != np.uint8 or images.shape[1:] not in (
            (height, width, channels),
            *([(height, width)] if channels == 1 else []),
        ):
            raise InputError(
                f"images of {images.dtype} {images.shape[1:]}; expected uint8 {(height, width, channels)} like the good ones"
            )
        planes = images.reshape(len(images), height, width, channels).transpose(0, 3, 1, 2)
        return np.asarray(planes.reshape(len(images), -1) - self.mean, np.float32)

    def reconstruct(self, images: npt.NDArray[np.uint8]) -> Matrix:
        """The nearest images that the components can make: mean + B^T B (x - mean).

        Args:
            images: uint8 (N, height, width) or (N, height, width, channels).

        Returns:
            float32 (N, channels, height, width), in units of the pixels.

        Raises:
            InputError: Images of another size.
        """
        rebuilt = (self.centred(images) @ self.basis.T) @ self.basis + self.mean
        return np.asarray(rebuilt.reshape(-1, *self.shape), np.float32)


def working_bytes(pixels: int, components: int) -> int:
    """The memory that a fit takes at the most beyond what the process holds, however many images there are.

    Args:
        pixels: Numbers D of an image, all channels together.
        components: Components k.

    Returns:
        Bytes: 9 matrices of 2 k directions in float32, and 64 MB.
    """
    return _MATRICES * _OVERSAMPLING * components * pixels * np.dtype(np.float32).itemsize + _WORKING_BYTES


def principal_components(images: Images, components: int, *, seed: int = 0) -> PrincipalComponents:
    """Fits principal components. The same images, number and seed give the same numbers on the same machine.

    Args:
        images: Good images of one size, uint8 (height, width) or (height, width, 1 or 3) each; read three times.
        components: Components k, fewer than images.
        seed: Seed of the draw of images that the iteration starts from.

    Raises:
        InputError: Too few images for the components, images that differ in size, or that do not differ at all.
        ResourceError: The fit would not fit into memory.
    """
    count = len(images)
    if not 1 <= components < count:
        raise InputError(
            f"{components} components from {count} images; expected at least 1 and fewer than images: "
            "choose fewer components or give more images"
        )
    directions = min(_OVERSAMPLING * components, count)
    drawn = np.sort(np.random.Generator(np.random.Philox(key=seed)).choice(count, directions, replace=False))
    shape, mean, total, basis = _survey(images, drawn, components)
    basis -= mean
    for iteration in range(_ITERATIONS):
        basis = _orthonormal(basis)
        image = _times_scatter(images, basis, mean, shape, f"components, reading {iteration + 2}")
        if iteration < _ITERATIONS - 1:
            basis = image
    variance, found = _nystrom(basis, image, components)
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    found *= np.where(largest < 0, np.float32(-1), np.float32(1))
    return PrincipalComponents(mean, found, variance / (count - 1), total, shape)


def _survey(
    images: Images, drawn: npt.NDArray[np.int64], components: int
) -> tuple[tuple[int, int, int], npt.NDArray[np.float32], float, Matrix]:
    """Shape, mean and total variance of the images, and those that were drawn, float32 (l, D)."""
    count = len(images)
    shape: tuple[int, int, int] | None = None
    wanted = {int(index): row for row, index in enumerate(drawn)}
    for index, image in enumerate(progress(images, total=count, label="components, reading 1")):
        if shape is None:
            shape = _shape(image)
            pixels = math.prod(shape)
            if components >= pixels:
                raise InputError(f"{components} components of images of {pixels} numbers; expected fewer")
            require(working_bytes(pixels, components), f"a fit of {components} components", "choose fewer components")
            # Sums of bytes and of their squares are whole numbers below 2^53: exact in any order.
            sums, squares = np.zeros(pixels), np.zeros(pixels)
            kept = np.empty((len(drawn), pixels), np.float32)
        values = _flat(image, shape).astype(np.float64)
        sums += values
        squares += values**2
        if index in wanted:
            kept[wanted[index]] = values
    if shape is None:
        raise InputError("the images could not be read again; expected a list, an array or files")
    total = float((squares - sums**2 / count).sum() / (count - 1))
    if not total > 0:
        raise InputError(f"all {count} images are the same; expected images that differ as good ones do")
    return shape, (sums / count).astype(np.float32), total, kept


def _times_scatter(
    images: Images, basis: Matrix, mean: npt.NDArray[np.float32], shape: tuple[int, int, int], label: str
) -> Matrix:
    """Basis (l, D) times the scatter matrix of the images (D, D), which is never formed."""
    product = np.zeros_like(basis)
    block, filled, seen = np.empty_like(basis), 0, 0
    for image in progress(images, total=len(images), label=label):
        np.subtract(_flat(image, shape), mean, out=block[filled])
        filled, seen = filled + 1, seen + 1
        if filled == len(block):
            product += (block @ basis.T).T @ block
            filled = 0
    if seen != len(images):
        raise InputError(f"{seen} of {len(images)} images could be read again; expected a list, an array or files")
    if filled:
        product += (block[:filled] @ basis.T).T @ block[:filled]
    return product


def _nystrom(basis: Matrix, image: Matrix, components: int) -> tuple[npt.NDArray[np.float64], Matrix]:
    """Eigenvalues (k,) and eigenvectors (k, D) of Z^T (Q Z^T)^-1 Z, the best guess at a matrix C from Q and Z = Q C."""
    inner = (basis @ image.T).astype(np.float64)
    inner = (inner + inner.T) / 2
    shift = _SHIFT * float(np.trace(inner)) / len(inner)
    # Added to C here and taken off its eigenvalues below.
    image += np.float32(shift) * basis
    inner[np.diag_indices_from(inner)] += shift
    inverse = np.linalg.inv(np.linalg.cholesky(inner)).astype(np.float32)
    half = inverse @ image
    values, vectors = np.linalg.eigh((half @ half.T).astype(np.float64))
    largest = slice(None, -components - 1, -1)
    found = _orthonormal(vectors[:, largest].T.astype(np.float32) @ half)
    return np.maximum(values[largest] - shift, 0.0), found


def _orthonormal(rows: Matrix) -> Matrix:
    """Orthonormal rows, of which the first n span what the first n of the given ones span."""
    return np.ascontiguousarray(np.linalg.qr(rows.T)[0].T)


def _shape(image: npt.NDArray[Any]) -> tuple[int, int, int]:
    channels = 1 if image.ndim == 2 else image.shape[-1]
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3) or not image.size:
        raise InputError(
            f"an image is {image.dtype} {image.shape}; expected uint8 (height, width) or (height, width, 1 or 3)"
        )
    return int(channels), int(image.shape[0]), int(image.shape[1])


def _flat(image: Image, shape: tuple[int, int, int]) -> Image:
    if _shape(image) != shape:
        raise InputError(f"an image is {image.shape}; expected {shape[1]} x {shape[2]} x {shape[0]} like the first one")
    return np.moveaxis(image.reshape(shape[1], shape[2], shape[0]), 2, 0).reshape(-1)
