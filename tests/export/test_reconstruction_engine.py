"""Engines of reconstruction detectors that were fitted, parsed and built for real by TensorRT-RTX, which needs no GPU."""

import functools
import re
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import msgspec
import pytest

from flawline.runtime import bundle as bundles
from flawline.runtime.errors import BundleError
from flawline.runtime.gpu.engine_builder import build_plan
from flawline.runtime.gpu.engine_cache import EngineOptions
from tests.export.rtx import rtx, run_command
from tests.fitted_reconstructions import FITTED, Fitted, fit

__all__ = ["rtx"]

OPTIONS = EngineOptions(workspace_mb=256)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fitted], bundles.Bundle]:
    """Gives each bundle, fitted when it is first asked for."""
    return functools.cache(lambda name: fit(name, tmp_path_factory.mktemp("fitted")))


@pytest.mark.parametrize("name", FITTED)
def test_an_engine_is_built_for_up_to_a_batch_of_frames(
    name: Fitted, rtx: Executor, fitted: Callable[[Fitted], bundles.Bundle]
) -> None:
    bundle = fitted(name)
    outputs = [output.name for output in bundle.manifest.network.outputs]
    assert outputs == ["reconstruction"] + ["saliency"] * ("autoencoder" in name)
    work = rtx.submit(build_plan, bundle.features, bundle.manifest, batch=4, options=OPTIONS)
    plan = work.result().plan
    assert len(plan) > 1000
    for output in outputs:
        assert output.encode() in plan


def test_a_graph_whose_outputs_are_not_those_of_the_manifest_is_refused(
    rtx: Executor, fitted: Callable[[Fitted], bundles.Bundle]
) -> None:
    other = fitted("pca grey")
    work = rtx.submit(build_plan, other.features, fitted("autoencoder grey").manifest, batch=1, options=OPTIONS)
    with pytest.raises(
        BundleError, match=r"takes frame and gives reconstruction; the manifest says frame and reconstruction, saliency"
    ):
        work.result()


@pytest.mark.parametrize("name", ["pca grey", "autoencoder colour"])
def test_the_command_builds_into_the_cache_once(
    name: Fitted, rtx: Executor, fitted: Callable[[Fitted], bundles.Bundle], tmp_path: Path
) -> None:
    words = ["export", str(fitted(name).path), "--to", "engine", "--batch", "2", "--json"]
    ran = rtx.submit(run_command, str(tmp_path), words).result()
    assert ran.status == 0, ran.err
    path = Path(msgspec.json.decode(ran.out)["engine"])
    assert path.parent == tmp_path / "flawline/engines"
    assert re.match(rf"{fitted(name).hash[:12]}\.fp32\.batch2\.28x28\.", path.name)
    assert rtx.submit(run_command, str(tmp_path), words).result().err == "it is there already\n"
