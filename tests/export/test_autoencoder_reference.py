"""The gate of saliency maps: what float32 cannot tell at the kink of a ReLU passes, a wrong map does not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from flawline.calibration.good_images import check_images
from flawline.detectors.autoencoders import build_autoencoder
from flawline.export.autoencoder import export_autoencoder
from flawline.export.autoencoder_graph import compose_autoencoder
from flawline.export.autoencoder_options import AutoencoderOptions
from flawline.export.autoencoder_reference import reference_of
from flawline.export.parity import ParityError
from flawline.export.reconstruction import Prepared, Reconstructor, draft
from flawline.export.reconstruction_parity import check
from flawline.runtime.images import list_images, read_image
from flawline.runtime.reconstruction_scorer import ReconstructionScorer

Bend = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
PIXELS = 28 * 28


def report_of(ones: Path, bend: Bend) -> dict[str, str | float]:
    """The gate's report on maps of 4 digits that were bent where they are least, so that no score changes."""
    paths = list_images(ones)
    prepared = Prepared(check_images(paths), paths[4:], paths[:4])
    network = build_autoencoder("fully-connected", 28, 28, bottleneck=16).eval()
    detector = Reconstructor(
        features=compose_autoencoder(export_autoencoder(network), ("reconstruction", "saliency"), layout="nchw"),
        kind="autoencoder",
        architecture=network.title,
        components=16,
        maps=("saliency",),
        sigma=0.0,
        chosen="given",
        fitted_on=prepared.fitted,
        reference=reference_of(network),
    )
    manifest = draft(detector, prepared, AutoencoderOptions(image_size=28, threads=1))
    with ReconstructionScorer(detector.features, manifest, backend="onnxruntime") as scorer:

        def bent(frame: npt.NDArray[np.uint8]) -> tuple[float, npt.NDArray[np.float32]]:
            score, anomaly_map = scorer(frame)
            return score, bend(anomaly_map)

        return check(bent, detector.reference, manifest, [read_image(path) for path in prepared.held_out])


def lifted(share: float) -> Bend:
    def bend(anomaly_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        values = anomaly_map.reshape(-1).copy()
        values[np.argsort(values)[: round(share * PIXELS)]] += np.float32(0.03) * values.max()
        return values.reshape(anomaly_map.shape)

    return bend


def test_map_of_the_file_is_that_of_autograd(ones: Path) -> None:
    report = report_of(ones, lambda anomaly_map: anomaly_map)
    assert 0 < report["map_relative_error_p99"] <= report["map_relative_error_max"] <= 1e-4


def test_a_few_pixels_at_a_kink_pass_and_are_said(ones: Path) -> None:
    report = report_of(ones, lifted(0.005))
    assert report["map_relative_error_p99"] <= 1e-4
    assert report["map_relative_error_max"] == pytest.approx(0.03, rel=0.01)


@pytest.mark.parametrize("bend", [lifted(0.02), lambda anomaly_map: anomaly_map * np.float32(0.999)])
def test_a_map_that_is_wrong_is_caught(ones: Path, bend: Bend) -> None:
    with pytest.raises(ParityError, match=r"maps of the exported detector .* largest error of 99 % of pixels"):
        report_of(ones, bend)
