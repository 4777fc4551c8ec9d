"""The examples of the README are ones that the commands take."""

import re
import shlex
from pathlib import Path

import pytest

from flawline import __main__

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"^flawline (.*?)\s*(?:#.*)?$", README, re.MULTILINE)


def test_there_is_an_example_of_every_command_but_the_demo():
    assert {example.split()[0] for example in EXAMPLES} == set(__main__.COMMANDS) - {"demo"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_understood(example):
    assert callable(__main__._parse(shlex.split(example)).run)
