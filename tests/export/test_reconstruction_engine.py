"""Engines of reconstruction detectors that were fitted, parsed and built for real by TensorRT-RTX, which needs no GPU."""

import functools
import re
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import msgspec
import pytest

from flawline.runtime import bundle as bundles
from flawline.runtime.bundle.manifest import AnyManifest
from flawline.runtime.errors import BundleError
from flawline.runtime.gpu.engine_builder import build_plan
from flawline.runtime.gpu.engine_cache import EngineOptions
from flawline.runtime.gpu.network import cut_features, cut_manifest, cut_output
from tests.export.rtx import rtx, run_command
from tests.fitted_reconstructions import FITTED, Fitted, fit

__all__ = ["rtx"]

OPTIONS = EngineOptions(workspace_mb=256)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fitted], bundles.Bundle]:
    """Gives each bundle, fitted when it is first asked for."""
    return functools.cache(lambda name: fit(name, tmp_path_factory.mktemp("fitted")))


def plan_of(rtx: Executor, features: bytes, manifest: AnyManifest) -> bytes:
    work = rtx.submit(build_plan, features, manifest, batch=4, options=OPTIONS)
    return work.result().plan


@pytest.mark.parametrize("name", FITTED)
def test_an_engine_of_the_whole_graph_is_built(
    name: Fitted, rtx: Executor, fitted: Callable[[Fitted], bundles.Bundle]
) -> None:
    bundle = fitted(name)
    outputs = [output.name for output in bundle.manifest.network.outputs]
    assert outputs == ["reconstruction"] + ["saliency"] * ("autoencoder" in name)
    plan = plan_of(rtx, bundle.features, bundle.manifest)
    assert all(output.encode() in plan for output in outputs)


@pytest.mark.parametrize("name", ["autoencoder grey", "autoencoder colour"])
def test_an_engine_gives_the_output_that_the_map_is_made_of_alone(
    name: Fitted, rtx: Executor, fitted: Callable[[Fitted], bundles.Bundle]
) -> None:
    whole = fitted(name)
    sizes = {}
    for kind, output in (("pse", "reconstruction"), ("saliency", "saliency")):
        bundle = whole.with_map(kind)
        assert cut_output(bundle.manifest) == output
        plan = plan_of(rtx, cut_features(bundle), cut_manifest(bundle.manifest))
        assert output.encode() in plan
        sizes[output] = len(plan)
    # Nothing is left of the way back.
    assert sizes["reconstruction"] < sizes["saliency"]


def test_a_graph_whose_outputs_are_not_those_of_the_manifest_is_refused(
    rtx: Executor, fitted: Callable[[Fitted], bundles.Bundle]
) -> None:
    other = fitted("pca grey")
    work = rtx.submit(build_plan, other.features, fitted("autoencoder grey").manifest, batch=1, options=OPTIONS)
    with pytest.raises(
        BundleError, match=r"takes frame and gives reconstruction; the manifest says frame and reconstruction, saliency"
    ):
        work.result()


@pytest.mark.parametrize(
    ("name", "options", "sort"),
    [
        ("pca grey", [], ""),
        ("autoencoder colour", [], r"\.reconstruction"),
        ("autoencoder colour", ["--map", "saliency-squared"], r"\.saliency"),
    ],
)
def test_the_command_builds_what_the_map_needs_into_the_cache_once(
    name: Fitted,
    options: list[str],
    sort: str,
    rtx: Executor,
    fitted: Callable[[Fitted], bundles.Bundle],
    tmp_path: Path,
) -> None:
    words = ["export", str(fitted(name).path), "--to", "engine", "--batch", "2", "--json", *options]
    ran = rtx.submit(run_command, str(tmp_path), words).result()
    assert ran.status == 0, ran.err
    path = Path(msgspec.json.decode(ran.out)["engine"])
    assert path.parent == tmp_path / "flawline/engines"
    assert re.match(rf"{fitted(name).hash[:12]}\.fp32\.batch2\.28x28{sort}\.trt", path.name)
    assert rtx.submit(run_command, str(tmp_path), words).result().err == "it is there already\n"
