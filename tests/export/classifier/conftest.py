"""Small 8 x 8 digits that scikit-learn holds, enlarged: four classes to learn, two that are none of them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

CLASSES = (0, 1, 4, 7)
OTHERS = (3, 8)


def enlarged(digits: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 28, 28), and their digits, int64 (N,)."""
    data = load_digits()
    chosen = np.isin(data.target, digits)
    images = [cv2.resize(image, (28, 28), interpolation=cv2.INTER_CUBIC) for image in data.images[chosen]]
    return (np.clip(np.stack(images), 0, 16) * 15.9375).astype(np.uint8), data.target[chosen].astype(np.int64)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz file of the classes, a third of them to test on."""
    images, labels = enlarged(CLASSES)
    last = len(images) * 2 // 3
    path = tmp_path_factory.mktemp("classes") / "digits.npz"
    np.savez(path, x_train=images[:last], y_train=labels[:last], x_test=images[last:], y_test=labels[last:])
    return path


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz file of what is none of the classes."""
    images, _ = enlarged(OTHERS)
    path = tmp_path_factory.mktemp("others") / "others.npz"
    np.savez(path, x_train=images[:200], x_test=images[200:])
    return path
