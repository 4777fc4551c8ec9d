"""No kernel of the sources goes without a test: each instance of a template is run and held against the reference."""

import itertools
import subprocess

import numpy as np
import pytest

from flawline.runtime.kernels import reference
from tests.runtime.kernels.cases import DTYPES, SHAPES, SIZE, TOLERANCE, random_maps
from tests.runtime.kernels.cuda.running import map_distances, projected_distances, vector_distances

NAMES = {"float16": "half", "float32": "single", "int8": "byte"}
VECTORS = (1, 2, 4, 8)
# Run by the tests of their files.
ON_IMAGES = {
    "frame_map",
    "preprocess_average",
    "preprocess_copy",
    "preprocess_interpolate",
    *(f"pse_{way}_{pixel}" for way in ("columns", "tiles") for pixel in ("byte", "single")),
    "saliency",
    "smooth_columns",
    "smooth_tiles",
}


@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scored", ["vector", "map", "projected"])
def test_each_instance_gives_the_distances_of_the_reference(
    device, scored, dtype, vectors, make_gaussians, rng, monkeypatch
):
    gaussians = make_gaussians(SIZE, 17, components=2, dtype=dtype)
    launch, launched = device.launch, []

    def recorded(kernel, *layout, **options):
        launched.append(kernel)
        launch(kernel, *layout, **options)

    monkeypatch.setattr(device, "launch", recorded)
    maps = random_maps(rng, vectors, 17, SHAPES[2])
    if scored == "projected":
        projection = (rng.standard_normal((17, 34)) / 6).astype(np.float16)
        x = reference.projected_embeddings(maps, projection, SIZE, "bilinear")
        out = projected_distances(device, gaussians, projection, maps, SIZE, order=2)
    elif scored == "map":
        x = reference.embeddings(maps, SIZE, "bilinear")
        out = map_distances(device, gaussians, maps, SIZE, order=2)
    else:
        x = rng.standard_normal((vectors, gaussians.outputs, 17)).astype(np.float32)
        out = vector_distances(device, gaussians, x, order=2)
    assert launched == [f"{scored}_distances_{NAMES[dtype]}_{vectors}"], "as many frames share an item"
    np.testing.assert_allclose(out, reference.mahalanobis(x, gaussians), rtol=TOLERANCE, atol=TOLERANCE)


def test_there_is_no_other_kernel(kernel_library):
    symbols = subprocess.run(["nm", "-D", kernel_library], capture_output=True, text=True, check=True).stdout.split()
    instances = itertools.product(("vector", "map", "projected"), NAMES.values(), VECTORS)
    expected = ON_IMAGES | {f"{scored}_distances_{name}_{vectors}" for scored, name, vectors in instances}
    assert {symbol.removesuffix("_emulated") for symbol in symbols if symbol.endswith("_emulated")} == expected
