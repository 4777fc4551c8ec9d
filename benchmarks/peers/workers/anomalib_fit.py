"""Fits anomalib's PaDiM and exports it in every form that anomalib offers for a CPU. Imports no flawline."""

import sys
from pathlib import Path
from typing import Any

from .fitting import Offers, openvino_precisions, read_task
from .torch_setup import prepare, resnet18_state

PACKAGES = ("anomalib", "torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "nncf", "numpy")
LAYERS = ["layer1", "layer2", "layer3"]
BATCH = 16


def main() -> int:
    """Fits as its documentation does, through the engine, on a folder; the test images are the validation set."""
    task = read_task()
    declared = prepare()
    import torch
    from anomalib.deploy import CompressionType
    from lightning import seed_everything

    torch.set_num_threads(task["threads"])
    seed_everything(0)
    model, data = _model(task), _data(task)
    _fit(model, data, task["out"])
    out, size = Path(task["out"]), (task["height"], task["width"])
    # Exports have a batch of one, which calibration must keep to.
    data.eval_batch_size = 1

    def openvino(name: str, **options: Any) -> list[Path]:
        xml = Path(model.to_openvino(out / name, input_size=size, **options))
        return [xml, xml.with_suffix(".bin")]

    def onnx() -> list[Path]:
        path = Path(model.to_onnx(out / "onnx", input_size=size))
        external = path.with_name(path.name + ".data")
        return [path, *([external] if external.exists() else [])]

    offers = Offers()
    offers.add(openvino_precisions(), lambda: openvino("fp32"))
    offers.add(
        openvino_precisions("int8 rest "),
        lambda: openvino("int8_ptq", compression_type=CompressionType.INT8_PTQ, datamodule=data),
    )
    offers.add(
        openvino_precisions("int8 weights "),
        lambda: openvino("int8_weights", compression_type=CompressionType.INT8),
    )
    offers.add([("onnxruntime", "fp32")], onnx)
    offers.add([("torch", "fp32")], lambda: [Path(model.to_torch(out / "torch"))])
    notes = [f"declared operators of torchvision: {', '.join(declared)}"] if declared else []
    offers.write(out, PACKAGES, notes)
    return 0


def _model(task: dict[str, Any]) -> Any:
    from anomalib.models import Padim

    model = Padim(
        backbone="resnet18",
        layers=LAYERS,
        pre_trained=False,
        n_features=task["dimension"],
        pre_processor=Padim.configure_pre_processor(image_size=(task["height"], task["width"])),
        visualizer=False,
    )
    network = model.model.feature_extractor.feature_extractor
    state = resnet18_state(task["weights"])
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return model


def _data(task: dict[str, Any]) -> Any:
    from anomalib.data import Folder

    labelled: dict[str, Any] = {"test_split_mode": "synthetic", "val_split_mode": "same_as_test"}
    if task["defective"] is not None:
        labelled = {
            "normal_test_dir": task["good"],
            "abnormal_dir": task["defective"],
            "val_split_mode": "same_as_test",
        }
    return Folder(
        name="frames",
        normal_dir=task["fit"],
        train_batch_size=BATCH,
        eval_batch_size=BATCH,
        num_workers=0,
        seed=0,
        **labelled,
    )


def _fit(model: Any, data: Any, out: str) -> None:
    from anomalib.engine import Engine

    engine = Engine(default_root_dir=out, accelerator="cpu", devices=1, logger=False)
    engine.fit(model=model, datamodule=data)


if __name__ == "__main__":
    sys.exit(main())
