"""MNISTX (Gudi and others, 2022, section 4.2): digits in the middle of 84 x 84 px, with salt-and-pepper noise all over."""

import numpy as np
import numpy.typing as npt

from flawline.runtime.errors import InputError
from flawline.runtime.memory import require

SIDE_PX = 84
"""Three times that of MNIST."""

_PAD_PX = SIDE_PX // 3
_AT_ONCE = 1000


def mnistx(digits: npt.NDArray[np.uint8], noise: float, *, seed: int) -> npt.NDArray[np.uint8]:
    """Pads digits with black and replaces pixels by black or white ones. The first n are the same, however many follow.

    Args:
        digits: uint8 (N, 28, 28).
        noise: Probability that a pixel is replaced, half of them each way. The paper does not say how many were.
        seed: Of the noise.

    Returns:
        uint8 (N, 84, 84).

    Raises:
        InputError: Images of another size, or noise that is no share.
        ResourceError: They would not fit into memory.
    """
    if digits.dtype != np.uint8 or digits.ndim != 3 or digits.shape[1:] != (_PAD_PX, _PAD_PX):
        raise InputError(f"digits {digits.dtype} {digits.shape}; expected uint8 (N, {_PAD_PX}, {_PAD_PX})")
    if not 0 <= noise <= 1:
        raise InputError(f"noise {noise}; expected a share of the pixels, 0 to 1")
    require(len(digits) * SIDE_PX**2, f"{len(digits)} digits of {SIDE_PX} x {SIDE_PX} px", "take fewer")
    images = np.zeros((len(digits), SIDE_PX, SIDE_PX), np.uint8)
    middle = slice(_PAD_PX, 2 * _PAD_PX)
    images[:, middle, middle] = digits
    generator = np.random.Generator(np.random.Philox(key=seed))
    for start in range(0, len(images), _AT_ONCE):
        part = images[start : start + _AT_ONCE]
        drawn = generator.random(part.shape, np.float32)
        part[drawn < noise / 2] = 0
        part[drawn >= 1 - noise / 2] = 255
    return images
