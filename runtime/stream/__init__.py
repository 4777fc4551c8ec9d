"""From a line camera to defects: source, block, ring, assembler, detector, sink."""

from flawline.runtime.events import Box, BoxMm, Defect, Event, Gap, Pitch, Summary
from flawline.runtime.stream.assembler import Assembler, Frame, GridAssembler, TriggerAssembler, Unscored
from flawline.runtime.stream.part_assembler import PartAssembler
from flawline.runtime.stream.part_finder import PartOptions
from flawline.runtime.stream.pictures import PictureWriter
from flawline.runtime.stream.pipeline import Cut, FrameDetector, run
from flawline.runtime.stream.ring import POLICIES, Block, Policy, Ring
from flawline.runtime.stream.sinks import DefectSink, JsonLinesSink, TextSink

__all__ = [
    "POLICIES",
    "Assembler",
    "Block",
    "Box",
    "BoxMm",
    "Cut",
    "Defect",
    "DefectSink",
    "Event",
    "Frame",
    "FrameDetector",
    "Gap",
    "GridAssembler",
    "JsonLinesSink",
    "PartAssembler",
    "PartOptions",
    "PictureWriter",
    "Pitch",
    "Policy",
    "Ring",
    "Summary",
    "TextSink",
    "TriggerAssembler",
    "Unscored",
    "run",
]
