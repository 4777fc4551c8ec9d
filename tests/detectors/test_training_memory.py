"""What a training is said to take, beside what it takes."""

import subprocess
import sys
from pathlib import Path

import pytest

from flawline.detectors.autoencoder import ImageShape
from flawline.detectors.training_memory import training_bytes
from flawline.runtime.errors import InputError

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from flawline.detectors.autoencoders import build_autoencoder
from flawline.detectors.training import train
from flawline.detectors.training_images import ArrayImages
from flawline.detectors.training_options import TrainingOptions

def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def run(size, batch):
    images = np.random.default_rng(0).integers(0, 256, (3 * batch // 2, size, size), np.uint8)
    options = TrainingOptions(epochs=2, batch_size=batch, validation_share=1 / 3)
    train(build_autoencoder(name, size, size), ArrayImages(images), options, checkpoint=Path(sys.argv[4]))

name, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
run(16, 4)
Path(sys.argv[4]).unlink()
before = peak()
run(size, batch)
print(peak() - before)
"""


@pytest.mark.parametrize(("name", "size", "batch"), [("fully-connected", 256, 16), ("convolutional", 64, 32)])
def test_training_takes_what_was_said_and_not_much_less(name: str, size: int, batch: int, tmp_path: Path) -> None:
    said = training_bytes(name, ImageShape(1, size, size), bottleneck=None, batch_size=batch)
    command = [sys.executable, "-c", MEASURE, name, str(size), str(batch), str(tmp_path / "run.pt")]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout)
    assert said / 3 < taken <= said


def test_network_that_cannot_be_built_takes_no_memory_either() -> None:
    with pytest.raises(InputError, match="expected multiples of 4 px"):
        training_bytes("convolutional", ImageShape(1, 30, 30), bottleneck=None, batch_size=2)
