"""A network in colour whose images are grey: the graph that ships computes what torch does."""

import numpy as np
import onnxruntime
import pytest
import torch

from flawline.detectors.classifiers import build_classifier
from flawline.export.classifier_graph import compose_classifier, export_classifier


@pytest.mark.parametrize("channels", [1, 3])
def test_efficientnet_gives_a_grey_channel_to_all_of_its_own(channels: int) -> None:
    network, _ = build_classifier("efficientnet-b0", 3, channels=channels, side_px=32, seed=1, weights=None)
    network.eval()
    features = compose_classifier(
        export_classifier(network),
        channels=channels,
        mean=tuple((network.mean.double().flatten() * 255).tolist()),
        std=tuple((network.std.double().flatten() * 255).tolist()),
    )
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, channels), dtype=np.uint8)
    deep, logits = onnxruntime.InferenceSession(features).run(None, {"frame": frames})
    with torch.no_grad():
        expected = network.deep_features(torch.from_numpy(frames.transpose(0, 3, 1, 2) / 255).float())
        called = network.logits(expected)
    np.testing.assert_allclose(deep[:, :, 0, 0], expected.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logits[:, :, 0, 0], called.numpy(), rtol=1e-3, atol=1e-4)
