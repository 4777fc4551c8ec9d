"""Scores frames with an export of anomalib's PaDiM, by the inferencer that its documentation names. Imports no flawline.

anomalib has no inferencer for ONNX Runtime: a plain session gets what `OpenVINOInferencer.pre_process` would give it,
and is spared the import of anomalib and torch.
"""

import os
import sys

import numpy as np

from .serving import Frame, Score, Task, serve


def openvino(task: Task) -> Score:
    """The documented path for a CPU."""
    from .torch_setup import prepare

    prepare()
    import torch
    from anomalib.deploy import OpenVINOInferencer

    torch.set_num_threads(task["threads"])
    config = {"INFERENCE_NUM_THREADS": task["threads"], "INFERENCE_PRECISION_HINT": task["precision"].split()[-1]}
    inferencer = OpenVINOInferencer(path=task["files"][0], device="CPU", config=config)

    def score(frame: Frame) -> tuple[float, bool]:
        prediction = inferencer.predict(frame)
        return np.asarray(prediction.pred_score).item(), np.asarray(prediction.pred_label).item()

    return score


def torch_inferencer(task: Task) -> Score:
    """The saved model in torch."""
    os.environ["TRUST_REMOTE_CODE"] = "1"
    from .torch_setup import prepare

    prepare()
    import torch
    from anomalib.deploy import TorchInferencer

    torch.set_num_threads(task["threads"])
    inferencer = TorchInferencer(path=task["files"][0], device="cpu")

    def score(frame: Frame) -> tuple[float, bool]:
        with torch.inference_mode():
            prediction = inferencer.predict(frame)
        return prediction.pred_score.item(), prediction.pred_label.item()

    return score


def onnx_runtime(task: Task) -> Score:
    """The ONNX export in a session of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task["threads"]
    session = onnxruntime.InferenceSession(task["files"][0], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def score(frame: Frame) -> tuple[float, bool]:
        image = frame.astype(np.float32) / 255.0
        values, labels = session.run(["pred_score", "pred_label"], {name: image[None].transpose(0, 3, 1, 2)})
        return values.item(), labels.item()

    return score


ENGINES = {"openvino": openvino, "onnxruntime": onnx_runtime, "torch": torch_inferencer}

if __name__ == "__main__":
    sys.exit(serve(lambda task: ENGINES[task["engine"]](task)))
