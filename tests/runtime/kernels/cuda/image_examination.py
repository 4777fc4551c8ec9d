"""What is asked of the kernels on images and maps when bugs are planted: few cases, each of which some bug would fail.

Imported by tests, and a program of its own for libraries that are built with AddressSanitizer.
"""

import sys
from pathlib import Path

import numpy as np

from flawline.runtime.kernels import proximally_sensitive_error, reference
from tests.emulation.build import ORDERS, Emulator
from tests.runtime.kernels.cuda.image_running import (
    Errors,
    frame_maps,
    preprocess,
    random_frames,
    random_maps,
    random_pair,
    resized,
    saliency,
    smooth,
)

_TOLERANCE = 1e-5


def examine(library: Path, kernels: str) -> None:
    """Holds kernels against NumPy and OpenCV, under several orders of the threads.

    Args:
        library: What has them.
        kernels: The source that they come from.

    Raises:
        AssertionError: A value is wrong, or NaN was hidden.
        LaunchError: Threads wait for each other.
    """
    look = {
        "smooth.cu": _examine_smooth,
        "pse.cu": _examine_errors,
        "saliency.cu": _examine_saliency,
        "frame_map.cu": _examine_frame_map,
        "preprocess.cu": _examine_preprocess,
    }[kernels]
    rng = np.random.default_rng(12)
    for order in range(ORDERS):
        look(Emulator(library), rng, order)


def _examine_smooth(device: Emulator, rng: np.random.Generator, order: int) -> None:
    # The last row of the last map starts where four floats do, and is no whole number of them.
    maps = random_maps(rng, 3, (33, 46))
    maps[1, 5, 7] = -np.float32("nan")
    for kernel in ("smooth_tiles", "smooth_columns"):
        out, scores = smooth(device, maps, 1.3, order=order, kernel=kernel)
        np.testing.assert_allclose(out, reference.smooth(maps, 1.3), rtol=_TOLERANCE)
        np.testing.assert_array_equal(scores, out.max((1, 2)))


def _examine_errors(device: Emulator, rng: np.random.Generator, order: int) -> None:
    for dtype in (np.uint8, np.float32):
        image, reconstruction = random_pair(rng, dtype, 2, 2, 33, 70)
        reconstruction[1, 0, 5, 7] = np.nan
        expected = proximally_sensitive_error(image, reconstruction, 1.5, implementation="reference")
        errors = Errors(device, image, 1.5)
        # The second time with what the first has left.
        for _ in range(2):
            for out, wanted in zip(errors(image, reconstruction, order=order), expected, strict=True):
                np.testing.assert_allclose(out, wanted, rtol=_TOLERANCE, atol=_TOLERANCE * expected.mean[0])


def _examine_saliency(device: Emulator, rng: np.random.Generator, order: int) -> None:
    # The second map starts where no four floats do; the last, of two blocks, is no whole number of them.
    given = random_maps(rng, 3, (33, 42))
    given[1, 0, 0] = -np.float32("nan")
    given[2] /= 100
    for squared in (False, True):
        out, scores = saliency(device, given, squared, order=order)
        np.testing.assert_array_equal(out, given * given if squared else given)
        np.testing.assert_array_equal(scores, out.max((1, 2)))


def _examine_frame_map(device: Emulator, rng: np.random.Generator, order: int) -> None:
    # So do the last pixels of the last frame.
    maps = random_maps(rng, 3, (7, 5))
    expected = reference.embeddings([maps[:, None]], (19, 131), "bilinear").reshape(3, 19, 131)
    threshold = float(np.median(maps))
    out, mask = frame_maps(device, maps, (19, 131), threshold=threshold, order=order)
    np.testing.assert_allclose(out, expected, rtol=_TOLERANCE)
    np.testing.assert_array_equal(mask, np.where(out > threshold, 255, 0))


def _examine_preprocess(device: Emulator, rng: np.random.Generator, order: int) -> None:
    # The last bytes of the last frame are no whole piece of sixteen.
    for size in ((17, 33), (23, 35), (60, 81), (46, 70)):
        frames = random_frames(rng, 2, 46, 70, 3)
        _, out = preprocess(device, frames, size, planar=True, order=order)
        np.testing.assert_array_equal(out, resized(frames, size))
    web = random_frames(rng, 24, 3000, 1)
    _, out = preprocess(device, web[None], (3, 33), order=order)
    np.testing.assert_array_equal(out, resized(web[None], (3, 33)))


if __name__ == "__main__":
    examine(Path(sys.argv[1]), sys.argv[2])
