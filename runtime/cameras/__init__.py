"""Line cameras and what stands for them, behind one interface: blocks of lines, or the reason why there are none."""

from flawline.runtime.cameras.source import BlockInfo, Source, Status, line_shape
from flawline.runtime.cameras.spec import SCHEMES, FoundCamera, Scheme, open_source

__all__ = ["SCHEMES", "BlockInfo", "FoundCamera", "Scheme", "Source", "Status", "line_shape", "open_source"]
