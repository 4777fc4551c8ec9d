"""How a frame comes to the size of a network's input: the same when a detector is fitted and on the line."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from flawline.runtime.extras import LazyModule

if TYPE_CHECKING:
    import cv2
else:
    cv2 = LazyModule("cv2", "pip install opencv-python-headless")

Interpolation = Literal["area", "linear"]


def resize_into(frame: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8], interpolation: Interpolation) -> None:
    """Writes a frame at another size.

    Args:
        frame: uint8 (height, width) or (height, width, channels).
        target: uint8 (target height, target width) or (target height, target width, channels), overwritten. The channels
            of a pixel lie side by side in it, unless it is of the frame's size.
        interpolation: Where both sides shrink; elsewhere it is always linear, since an average over areas degenerates to
            nearest neighbours there.
    """
    if frame.shape == target.shape:
        target[...] = frame
        return
    shrinks = frame.shape[0] >= target.shape[0] and frame.shape[1] >= target.shape[1]
    chosen = cv2.INTER_AREA if shrinks and interpolation == "area" else cv2.INTER_LINEAR
    cv2.resize(frame, target.shape[1::-1], dst=target, interpolation=chosen)
