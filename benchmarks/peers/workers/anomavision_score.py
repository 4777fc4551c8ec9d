"""Scores frames with an export of AnomaVision's PaDiM through its `ModelWrapper`. Imports no flawline.

The preprocessing is that of its data set (Pillow image, torchvision transforms). The verdict is score against
threshold; its `detect` command blurs the map first, which is left out in its favour. Its backends take no number of
threads and OpenVINO's no precision, so both are set where they construct their engine.
"""

import sys
from typing import Any

import numpy as np

from .serving import Frame, Score, Task, serve
from .torch_setup import prepare

THRESHOLD = 13.0
"""A threshold of PaDiM by the word of its source; what it is does not change what a verdict costs."""


def open_scorer(task: Task) -> Score:
    """Opens the model as `anomavision detect` does."""
    prepare()
    import torch

    torch.set_num_threads(task["threads"])
    if task["engine"] == "onnxruntime":
        _limit_onnx_runtime(task["threads"])
    elif task["engine"] == "openvino":
        _limit_openvino(task["threads"], task["precision"])
    from anomavision.inference.model.wrapper import ModelWrapper
    from anomavision.utils import create_image_transform
    from PIL import Image

    size = (task["height"], task["width"])
    transform = create_image_transform(resize=size, crop_size=size)
    model = ModelWrapper(task["files"][0], "cpu")

    def score(frame: Frame) -> tuple[float, bool]:
        scores, _ = model.predict(transform(Image.fromarray(frame)).unsqueeze(0))
        value = np.asarray(scores).item()
        return value, value >= THRESHOLD

    return score


def _limit_onnx_runtime(threads: int) -> None:
    import onnxruntime

    class Options(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = threads

    onnxruntime.SessionOptions = Options


def _limit_openvino(threads: int, precision: str) -> None:
    import openvino.runtime

    class Core(openvino.runtime.Core):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision})

    openvino.runtime.Core = Core


if __name__ == "__main__":
    sys.exit(serve(open_scorer))
