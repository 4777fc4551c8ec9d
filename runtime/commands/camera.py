"""Line cameras: which are there, whether one holds its rate, and its flat field.

A camera, or what stands for one, is named KIND:ADDRESS?PARAMETER=VALUE&...:

  replay:DIR                        images, or a recording
  video:FILE                        a video, a sequence such as web/%04d.png, /dev/video0, gstreamer:PIPELINE
  aravis:IP                         a GigE Vision or USB3 Vision camera   (apt-get install libaravis-0.8-0)
  pylon:SERIAL                      a Basler camera                  (pip install 'flawline[pylon]')
  gentl:SERIAL?producer=FILE.cti    a camera by its GenTL producer   (pip install 'flawline[gentl]')

  flawline camera list
  flawline camera test 'pylon:40012345?width=4096&block=256&line_rate=20000&feature.ExposureTime=40'
"""

import argparse

from flawline.runtime.commands import camera_list, camera_test, flat_field
from flawline.runtime.commands.subcommands import add_subcommands

ACTIONS = {
    "list": (camera_list, "the cameras that answer, each with the name that opens it"),
    "test": (camera_test, "the rate that a camera holds, what it loses, and why"),
    "flat-field": (flat_field, "a flat field from dark and white lines"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the actions and their arguments."""
    add_subcommands(parser, ACTIONS, "action")


def run(options: argparse.Namespace) -> int:
    """Runs the chosen action."""
    return int(options.run_action(options))
