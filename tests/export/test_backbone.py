"""Networks out of torch: what the exported graph computes, and what it does not carry."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from flawline.detectors import NETWORKS, build
from flawline.export.backbone import export_backbone
from flawline.runtime.errors import InputError
from flawline.runtime.extras import LazyModule

onnxruntime = LazyModule("onnxruntime", "pip install onnxruntime")

EXPORT = """
import hashlib
from flawline.detectors import build
from flawline.export.backbone import export_backbone
graph = export_backbone(build("resnet18", "random", seed=3)[0], 32, 32)
print(hashlib.sha256(graph.model.SerializeToString(deterministic=True)).hexdigest())
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_exported_network_equals_torch(name: str) -> None:
    network, _ = build(name, None if name == "efficientnet-lite0" else "random")
    graph = export_backbone(network, 32, 64)
    assert graph.layers == NETWORKS[name].layers
    assert graph.strides == (4, 8, 16)
    assert graph.sizes == ((8, 16), (4, 8), (2, 4))
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        image = torch.randn(batch, 3, 32, 64, generator=torch.Generator().manual_seed(batch))
        for received, expected in zip(session.run(None, {graph.input: image.numpy()}), network(image), strict=True):
            assert np.abs(received - expected.numpy()).max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "operators"),
    [("efficientnet-lite0", {"Conv", "Clip", "Add"}), ("resnet18", {"Conv", "Relu", "Add", "MaxPool"})],
)
def test_batch_norm_and_padding_are_part_of_the_convolutions(name: str, operators: set[str]) -> None:
    graph = export_backbone(build(name, "random")[0], 32, 32)
    assert {node.op_type for node in graph.model.graph.node} == operators


def test_exported_file_carries_nothing_of_this_machine() -> None:
    graph = export_backbone(build("efficientnet-lite0")[0], 32, 32)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    text = model.SerializeToString()
    for trace in (
        b".py",
        b"File ",
        b"forward",
        b"torch",
        b"flawline",
        os.fsencode(Path.cwd()),
        os.fsencode(sys.prefix),
    ):
        assert trace not in text
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_export_is_silent_and_the_same_in_every_process() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", EXPORT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    assert [item.stderr for item in runs] == ["", ""]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.split()) == 1


def test_graph_hash_is_of_its_bytes() -> None:
    graph = export_backbone(build("resnet18", "random", layers=["layer1"])[0], 32, 32)
    assert graph.sha256 == hashlib.sha256(graph.model.SerializeToString(deterministic=True)).hexdigest()


@pytest.mark.parametrize(("height", "width"), [(200, 224), (224, 231), (0, 224), (8, 8)])
def test_size_that_is_no_multiple_of_the_stride_is_refused(height: int, width: int) -> None:
    network, _ = build("efficientnet-lite0", "random")
    with pytest.raises(InputError, match="expected multiples of its stride 16"):
        export_backbone(network, height, width)


def test_an_interrupted_export_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    # As torch's exporter does it: the interruption becomes the cause of an error of its own.
    def export(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interruption:
            raise RuntimeError("export failed") from interruption

    monkeypatch.setattr(torch.onnx, "export", export)
    network, _ = build("resnet18", "random")
    with pytest.raises(KeyboardInterrupt):
        export_backbone(network, 64, 64)
