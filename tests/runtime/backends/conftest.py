from collections.abc import Callable

import numpy as np
import pytest

from flawline.detectors import NETWORKS, build
from flawline.export.backbone import export_backbone
from flawline.export.graph import compose
from flawline.runtime.backends import Backend, open_backend

SIDE, DIMENSION = 64, 20


@pytest.fixture(scope="session")
def network() -> Callable[..., Backend]:
    """Opens an exported ResNet-18 of random weights: `network("openvino", threads=2, batch=3)`."""
    exported = export_backbone(build("resnet18", "random")[0], SIDE, SIDE)
    description = NETWORKS["resnet18"]
    projection = np.random.default_rng(3).standard_normal((DIMENSION, exported.depth)) / np.sqrt(DIMENSION)
    features, outputs = compose(
        exported,
        height=SIDE,
        width=SIDE,
        channels=1,
        mean=description.mean,
        std=description.std,
        projection=projection.astype(np.float32),
    )

    def opened(engine: str, *, batch: int = 1, **options: object) -> Backend:
        shapes = [(batch, DIMENSION, height, width) for _, height, width in outputs]
        return open_backend(engine, features, (batch, SIDE, SIDE, 1), shapes, **options)

    return opened
