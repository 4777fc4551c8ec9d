"""From a line camera to defects: source, block, ring, assembler, detector, sink."""

from flawline.runtime.stream.assembler import Assembler, Frame
from flawline.runtime.stream.events import Box, BoxMm, Defect, Event, Gap, Pitch, Summary
from flawline.runtime.stream.pictures import PictureWriter
from flawline.runtime.stream.pipeline import FrameDetector, run
from flawline.runtime.stream.ring import POLICIES, Block, Loss, Policy, Ring
from flawline.runtime.stream.sinks import DefectSink, JsonLinesSink, TextSink

__all__ = [
    "POLICIES",
    "Assembler",
    "Block",
    "Box",
    "BoxMm",
    "Defect",
    "DefectSink",
    "Event",
    "Frame",
    "FrameDetector",
    "Gap",
    "JsonLinesSink",
    "Loss",
    "PictureWriter",
    "Pitch",
    "Policy",
    "Ring",
    "Summary",
    "TextSink",
    "run",
]
