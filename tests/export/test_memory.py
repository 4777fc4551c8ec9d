"""The memory that a fit announces is what it takes, in a process of its own."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys
from pathlib import Path
from flawline.__main__ import main
from flawline.runtime import memory

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

announced = []
require = memory.require

def watch(needed, what, hint):
    if what.startswith("fitting"):
        announced.append((needed, resident("VmRSS")))
    require(needed, what, hint)

memory.require = watch
status = main(sys.argv[1:])
(needed, before), = announced
print(json.dumps({"status": status, "needed": needed, "taken": resident("VmHWM") - before}))
"""


@pytest.mark.parametrize(
    "words",
    [
        "--backbone resnet18 --dim 100",
        "--backbone resnet18 --dim 48 --tie global --shrinkage oas",
        "--backbone wide-resnet50-2 --dim 32 --map-stride 8",
        "--backbone resnet18 --dim 150 --precision int8-openvino --factors fp32 --form triangle",
        "--backbone efficientnet-lite0 --dim 100 --precision fp16 --factors int8",
    ],
)
def test_a_fit_takes_the_memory_that_it_announces(words, good_images, tmp_path):
    command = ["fit", str(good_images), "--out", str(tmp_path / "made.flaw"), "--weights", "random", *words.split()]
    result = subprocess.run(
        [sys.executable, "-c", CODE, *command], capture_output=True, text=True, timeout=280, check=True
    )
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts["status"] == 0, result.stderr
    # Never less than a tenth below, and not so much above that good work would be refused for nothing.
    assert 0.9 * facts["taken"] <= facts["needed"] <= 3 * facts["taken"], facts
