import pytest

from flawline.benchmarks.datasets import Item
from flawline.benchmarks.peers.frames import write_frames
from flawline.export.fit import FitOptions, fit_bundle


@pytest.fixture(scope="session")
def frames(tiny_dataset, tmp_path_factory):
    test = [Item(path, "good") for path in sorted((tiny_dataset / "test/good").iterdir())]
    test += [Item(path, "spot") for path in sorted((tiny_dataset / "test/spot").iterdir())]
    fit = sorted((tiny_dataset / "train/good").iterdir())
    return write_frames(fit, test, tmp_path_factory.mktemp("frames"), (64, 64))


@pytest.fixture(scope="session")
def colour_bundle(frames, tiny_network, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "colour.flaw"
    options = FitOptions(
        backbone=str(tiny_network),
        layers=("fine", "coarse"),
        image_size=64,
        dimension=4,
        threads=1,
        false_reject_rate=0.4,
        calibration_images=2,
    )
    fit_bundle(sorted(frames.fit.iterdir()), out, options)
    return out
