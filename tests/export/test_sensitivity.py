"""The report of what each layer's 8 bits cost, on networks where the culprit is known."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flawline.export.calibrated import calibrate
from flawline.export.quantise import quantise
from flawline.export.sensitivity import Layer, layers_to_keep, sensitivity
from flawline.runtime.errors import InputError


def layer(name: str, error: float, share: float) -> Layer:
    return Layer(name=name, errors=(error / 2, error), share=share)


def test_every_convolution_is_reported_with_its_share(lite0: Any) -> None:
    layers = sensitivity(lite0.calibrated, lite0.compared[:2], "int8")
    assert [row.name for row in layers] == [node.name for node in lite0.calibrated.convolutions]
    assert sum(row.share for row in layers) == pytest.approx(1)
    assert all(0 <= error < 0.2 for row in layers for error in row.errors)
    # The last projection reaches the last output alone.
    assert layers[-1].errors[0] == 0
    assert layers[-1].errors[1] > 0


def test_a_layer_that_eight_bits_do_not_suit_stands_out_and_is_kept(lite0: Any) -> None:
    model = onnx.load_from_string(lite0.features)
    # One channel a thousand times larger, which its reader scales back: the float graph computes the same.
    producer, reader = (lite0.calibrated.convolutions[i] for i in (2, 3))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, span, factor in (
        (producer.input[1], np.s_[:1], 1e3),
        (producer.input[2], np.s_[:1], 1e3),
        (reader.input[1], np.s_[:, :1], 1e-3),
    ):
        values = numpy_helper.to_array(constants[name]).copy()
        values[span] *= np.float32(factor)
        constants[name].CopyFrom(numpy_helper.from_array(values, name))
    calibrated = calibrate(model.SerializeToString(), lite0.calibration, 0)
    layers = sensitivity(calibrated, lite0.compared[:2], "int8-openvino")
    worst = max(layers, key=lambda row: row.worst)
    assert worst.name == reader.name
    assert worst.worst > 0.2
    assert layers_to_keep(layers, float_share=0.2)[0] == reader.name
    spoilt = max(lite0.errors(lite0.run(quantise(calibrated, "int8-openvino"))))
    mended = max(lite0.errors(lite0.run(quantise(calibrated, "int8-openvino", keep_float=[reader.name]))))
    assert mended < spoilt / 2


def test_the_most_harmful_layers_are_kept_as_far_as_they_are_cheap() -> None:
    layers = [
        layer("mild", 0.05, 0.01),
        layer("bad", 0.2, 0.03),
        layer("heavy", 0.5, 0.6),
        layer("worse", 0.3, 0.03),
        layer("small", 0.15, 0.01),
    ]
    assert layers_to_keep(layers) == ["worse", "small"]
    assert layers_to_keep(layers, float_share=1) == ["heavy", "worse", "bad", "small"]
    assert layers_to_keep(layers, worst_error=1) == []


@pytest.mark.shared_data
def test_no_layer_of_resnet18_is_kept(resnet18: Any) -> None:
    assert layers_to_keep(sensitivity(resnet18.calibrated, resnet18.compared[:2], "int8")) == []


def test_no_frames_are_refused(lite0: Any) -> None:
    with pytest.raises(InputError, match="no frames to compare features on"):
        sensitivity(lite0.calibrated, [], "int8")
