"""The gate on a real network and real images: 8 bits pass, a residual branch that is lost on the way does not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flawline.__main__ import main
from flawline.export import fidelity, quantising, variants
from flawline.export.fit import FitOptions, fit_bundle
from flawline.runtime import bundle as bundles
from flawline.runtime.images import list_images

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def images(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred good tiles of all that there are."""
    folder = tmp_path_factory.mktemp("tiles")
    for path in list_images(shared_data / "magnetic_tile" / "train" / "good")[::7]:
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def bundle(shared_data: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-18 of real weights in fp32."""
    options = FitOptions(
        backbone="resnet18",
        weights=str(next((shared_data / "resnet18").glob("*.npz"))),
        image_size=128,
        dimension=32,
        threads=1,
    )
    return fit_bundle(list_images(images), tmp_path_factory.mktemp("bundle") / "tiles.flaw", options).path


def export(bundle: Path, images: Path, out: Path) -> int:
    words = f"export {bundle} --precision int8 --images {images} --out {out} --threads 1"
    return main(words.split())


def test_a_whole_network_passes_with_half_of_each_tolerance_to_spare(
    bundle: Path, images: Path, tmp_path: Path
) -> None:
    assert export(bundle, images, tmp_path / "out.flaw") == 0
    report = bundles.read(tmp_path / "out.flaw").select("int8").manifest.fidelity
    assert report is not None
    tolerance = fidelity.TOLERANCES["int8"]
    for figure in ("feature_error", "score_error_median", "score_error_p99"):
        assert report[figure] < getattr(tolerance, figure) / 2
    assert 1 - report["rank_correlation"] < (1 - tolerance.rank_correlation) / 2


@pytest.mark.parametrize("block", ["layer1.0", "layer2.1", "layer3.1"])
def test_a_network_without_one_residual_branch_is_refused(
    block: str,
    bundle: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calibrate = variants.calibrate

    def without_branch(features: bytes, *arguments: object, **named: object) -> object:
        model = onnx.load_from_string(features)
        lost = [tensor for tensor in model.graph.initializer if tensor.name.startswith(f"network/{block}.conv2.")]
        assert len(lost) == 2  # weight and bias
        for tensor in lost:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(tensor)), tensor.name))
        return calibrate(model.SerializeToString(), *arguments, **named)

    # The planted fault: only the graph that is quantised lost it.
    monkeypatch.setattr(variants, "calibrate", without_branch)
    monkeypatch.setattr(quantising, "sensitivity", lambda *arguments, **named: [])
    assert export(bundle, images, tmp_path / "out.flaw") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(
        "flawline export: in int8 the detector does not score like the float detector: feature error"
    )
    assert list(tmp_path.iterdir()) == []
