"""Saliencies as anomaly maps and their maxima, made by the CUDA kernel under the emulator."""

import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.cuda import image_calls
from tests.emulation.build import ORDERS
from tests.runtime.kernels.cuda.image_running import random_maps, saliency

# Around the quads of a thread, the 128 positions of a warp and the 1,024 of a block; maps that start where no four floats do.
SIZES = [(1, 1), (1, 3), (4, 1), (1, 127), (8, 16), (3, 43), (31, 33), (32, 32), (25, 41), (65, 63)]


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_maps_are_what_is_given_or_its_squares_and_the_scores_their_maxima(device, size, squared, rng):
    given = random_maps(rng, 3, size)
    for order in range(ORDERS):
        out, scores = saliency(device, given, squared, order=order)
        np.testing.assert_array_equal(out, given * given if squared else given)
        np.testing.assert_array_equal(scores, out.max((1, 2)))


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("wrong", [np.float32("nan"), -np.float32("nan"), np.float32("inf")])
@pytest.mark.parametrize("place", [(0, 0), (20, 31), (32, 38)])
def test_what_is_not_finite_is_the_score_of_its_frame_alone(device, place, wrong, squared, rng):
    given = random_maps(rng, 3, (33, 39))
    given[1][place] = wrong
    out, scores = saliency(device, given, squared)
    np.testing.assert_array_equal(np.isfinite(out), np.isfinite(given))
    np.testing.assert_array_equal(np.isfinite(scores), [True, False, True])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 3), 1), "height: received 0, expected an integer of at least 1"),
        (((3, 0), 1), "width: received 0, expected an integer of at least 1"),
        (((3, 3), 0), "frames: received 0, expected an integer of at least 1"),
    ],
)
def test_what_is_no_map_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        image_calls.saliency(*arguments)
