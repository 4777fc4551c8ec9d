"""Where `make test` puts what stands for TensorRT on a machine without a GPU."""

import os
import sys
from pathlib import Path

import pytest


def tensorrt_folder(name: str) -> Path:
    """The folder of a package; skips the test where it is not installed, and fails it where it must be.

    Args:
        name: Of the dependency group, without `tensorrt-`.
    """
    installed = Path(sys.prefix) / "tensorrt"
    if not (installed / ".ready").exists():
        reason = "nothing stands for TensorRT here: `make test` installs what does"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = installed / name
    if not list(folder.glob("tensorrt_*bindings/tensorrt*.so")):
        pytest.skip(f"tensorrt-{name} has no release for this Python and this machine")
    return folder
