"""Fits AnomaVision's PaDiM and exports it in every form that it offers for a CPU. Imports no flawline."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from .fitting import Offers, openvino_precisions, read_task
from .torch_setup import prepare, resnet18_state

PACKAGES = ("anomavision", "torch", "torchvision", "onnx", "onnxruntime", "openvino", "numpy")
LAYERS = [0, 1, 2]
BATCH = 16
CALIBRATION_IMAGES = 100
CHECKPOINT = "resnet18-f37072fd.pth"


def main() -> int:
    """Fits and exports as `anomavision train` and `anomavision export` do."""
    task = read_task()
    declared = prepare()
    import torch

    torch.set_num_threads(task["threads"])
    # The network always comes from torch's cache of downloads, whatever is asked for: it finds the given weights there.
    checkpoints = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    torch.save(resnet18_state(task["weights"]), checkpoints / CHECKPOINT)
    out, shape = Path(task["out"]), (1, 3, task["height"], task["width"])
    _fit(task, out)
    from anomavision.export import ModelExporter

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    exporter = ModelExporter(out / "model.pt", out, logging.getLogger("anomavision.export"), device="cpu")

    def onnx(name: str, suffix: str = "", **options: Any) -> list[Path]:
        exporter.export_onnx(input_shape=shape, output_name=f"{name}.onnx", dynamic_batch=False, **options)
        path = out / f"{name}{suffix}.onnx"
        external = path.with_name(path.name + ".data")
        return [path, *([external] if external.exists() else [])]

    def openvino() -> list[Path]:
        exporter.export_openvino(input_shape=shape)
        xml = out / "model_openvino" / "model_openvino.xml"
        return [xml, xml.with_suffix(".bin")]

    def torchscript() -> list[Path]:
        exporter.export_torchscript(input_shape=shape, output_name="model.torchscript")
        return [out / "model.torchscript"]

    offers = Offers()
    offers.add([("onnxruntime", "fp32")], lambda: onnx("model"))
    offers.add(
        [("onnxruntime", "int8 static")],
        lambda: onnx(
            "quantised",
            "_int8_static",
            quantize_static_flag=True,
            calib_samples=CALIBRATION_IMAGES,
            calib_dir=task["fit"],
        ),
    )
    offers.add(
        [("onnxruntime", "int8 dynamic")],
        lambda: onnx("quantised", "_int8_dynamic", quantize_dynamic_flag=True),
    )
    offers.add(openvino_precisions(), openvino)
    offers.add([("torchscript", "fp32")], torchscript)
    offers.add([("torch", "fp32")], lambda: [out / "model.pt"])
    notes = [f"declared operators of torchvision: {', '.join(declared)}"] if declared else []
    offers.write(out, PACKAGES, notes)
    return 0


def _fit(task: dict[str, Any], out: Path) -> None:
    import anomavision
    import torch

    size = (task["height"], task["width"])
    data = anomavision.AnodetDataset(task["fit"], resize=size, crop_size=size)
    model = anomavision.Padim(
        backbone="resnet18", device=torch.device("cpu"), layer_indices=LAYERS, feat_dim=task["dimension"]
    )
    model.fit(torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=False))
    torch.save(model, out / "model.pt")


if __name__ == "__main__":
    sys.exit(main())
