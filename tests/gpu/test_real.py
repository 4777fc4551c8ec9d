"""What runs the tables of cases on a GPU, held against the stand-in driver."""

import numpy as np
import pytest

from flawline.runtime.errors import DeviceError
from flawline.runtime.gpu.device import Device
from flawline.runtime.gpu.module import Kernels
from flawline.runtime.kernels import mahalanobis, reference
from tests.gpu import real
from tests.runtime.kernels.cases import random_gaussians
from tests.runtime.kernels.cuda.image_running import random_maps, smooth
from tests.runtime.kernels.cuda.running import vector_distances


def examine(device, rng):
    """Each call of the interface, with one struct that holds others and one that does not."""
    with device.current("in a test"):
        kernels = Kernels(device)
    with real.opened(device, kernels) as gpu:
        gaussians = random_gaussians(rng, (2, 3), 9)
        x = rng.standard_normal((3, 6, 9)).astype(np.float32)
        np.testing.assert_allclose(vector_distances(gpu, gaussians, x), mahalanobis(x, gaussians), rtol=1e-5)
        maps = random_maps(rng, 2, (7, 31))
        out, scores = smooth(gpu, maps, 1.3)
        np.testing.assert_allclose(out, reference.smooth(maps, 1.3), rtol=1e-5)
        np.testing.assert_array_equal(scores, out.max((1, 2)))


def test_cases_run_as_they_do_under_the_emulator(standin):
    examine(Device(), np.random.default_rng(0))
    assert standin.calls("kernel") == 2


def test_a_launch_that_fails_fails_the_test(standin):
    standin.reset(fail="cuLaunchKernel@2=1")
    with pytest.raises(DeviceError, match="in a test"):
        examine(Device(), np.random.default_rng(0))
