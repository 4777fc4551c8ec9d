"""Line cameras and what stands for them, behind one interface: blocks of lines, or the reason why there are none."""

from flawline.runtime.cameras.found import FoundCamera
from flawline.runtime.cameras.source import (
    BlockInfo,
    CameraLostError,
    Loss,
    Source,
    Status,
    line_shape,
    require_encoder,
)
from flawline.runtime.cameras.spec import SCHEMES, Scheme, open_source

__all__ = [
    "SCHEMES",
    "BlockInfo",
    "CameraLostError",
    "FoundCamera",
    "Loss",
    "Scheme",
    "Source",
    "Status",
    "line_shape",
    "open_source",
    "require_encoder",
]
