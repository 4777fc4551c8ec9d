"""Frames brought to the network's input, by the CUDA kernels under the emulator, as OpenCV does it.

Measured with OpenCV 4.11, 4.13 and 5.0 on x86-64: no pixel of any case differs.
"""

import numpy as np
import pytest

from flawline.runtime.errors import InputError
from flawline.runtime.kernels.cuda import image_calls
from flawline.runtime.kernels.cuda.resize_tables import resize_tables
from tests.emulation.build import ORDERS
from tests.runtime.kernels.cuda.image_running import preprocess, random_frames, resized

LAYOUTS = [(1, True), (3, True), (3, False)]
"""Channels, and whether the network takes them in planes."""

SIZES = [
    ((40, 65), (17, 33), "preprocess_average"),
    ((64, 200), (31, 40), "preprocess_average"),
    ((66, 99), (22, 33), "preprocess_average"),
    ((48, 70), (24, 35), "preprocess_average"),
    ((30, 90), (30, 33), "preprocess_average"),
    ((16, 50), (40, 33), "preprocess_interpolate"),
    ((20, 30), (41, 77), "preprocess_interpolate"),
    ((1, 1), (9, 40), "preprocess_interpolate"),
    ((17, 129), (17, 129), "preprocess_copy"),
    ((8, 128), (8, 128), "preprocess_copy"),
]
"""Frame, network's input, and what brings one to the other."""

LARGEST_DIFFERENCE = 1
LARGEST_SHARE = 1e-4
"""Grey levels by which pixels may differ, and the share of those that do: other builds of OpenCV round in other places."""


def assert_close(out, expected):
    difference = np.abs(out.astype(int) - expected)
    assert difference.max() <= LARGEST_DIFFERENCE
    assert (difference > 0).mean() <= LARGEST_SHARE


@pytest.mark.parametrize(("channels", "planar"), LAYOUTS)
@pytest.mark.parametrize(("frame_size", "size", "kernel"), SIZES)
def test_frames_are_resized_as_opencv_does_it(device, frame_size, size, kernel, channels, planar, rng):
    frames = random_frames(rng, 2, *frame_size, channels)
    expected = resized(frames, size)
    for order in range(ORDERS):
        used, out = preprocess(device, frames, size, planar=planar, order=order)
        assert used == kernel
        assert_close(out, expected)


@pytest.mark.parametrize(
    ("frame_size", "kernel"),
    [((40, 65), "preprocess_interpolate"), ((90, 300), "preprocess_interpolate"), ((34, 66), "preprocess_average")],
)
@pytest.mark.parametrize(("channels", "planar"), LAYOUTS)
def test_bundles_that_say_linear_average_halves_alone(device, frame_size, kernel, channels, planar, rng):
    frames = random_frames(rng, 1, *frame_size, channels)
    used, out = preprocess(device, frames, (17, 33), "linear", planar=planar)
    assert used == kernel
    assert_close(out, resized(frames, (17, 33), "linear"))


@pytest.mark.parametrize(("channels", "planar"), LAYOUTS)
def test_rows_that_do_not_fit_shared_memory_together_are_averaged_in_turn(device, channels, planar, rng):
    frames = random_frames(rng, 1, 120, 3000, channels)
    call = image_calls.preprocess(
        (120, 3000), (8, 33), 1, device.put, channels=channels, planar=planar, interpolation="area"
    )
    assert call.job["band"] < 120
    for order in range(ORDERS):
        _, out = preprocess(device, frames, (8, 33), planar=planar, order=order)
        assert_close(out, resized(frames, (8, 33)))


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("size", [(17, 33), (22, 33), (60, 90), (33, 50)])
def test_plain_frames_stay_plain(device, level, size):
    frames = np.full((1, 66, 99, 3), level, np.uint8)
    np.testing.assert_array_equal(preprocess(device, frames, size)[1], level)


@pytest.mark.parametrize(("channels", "planar"), LAYOUTS)
@pytest.mark.parametrize("size", [(24, 70), (17, 33), (40, 90)])
@pytest.mark.parametrize("offset", [0, 1, 13])
def test_overlapping_tiles_of_a_web_fill_their_slots_and_no_others(device, offset, size, channels, planar, rng):
    web = random_frames(rng, 30, 251, channels)
    tiles = np.lib.stride_tricks.as_strided(
        web[3:, offset:], (3, 24, 70, channels), (53 * channels, 251 * channels, channels, 1)
    )
    _, out = preprocess(device, tiles, size, planar=planar, within=web, slots=5, first=1)
    assert_close(out[1:4], resized(np.ascontiguousarray(tiles), size))
    np.testing.assert_array_equal(out[[0, 4]], 7)


@pytest.mark.parametrize("interpolation", ["area", "linear"])
def test_random_sizes_are_resized_as_opencv_does_it(device, interpolation, rng):
    for _ in range(30):
        frames = random_frames(rng, 1, *rng.integers(16, 120, 2), rng.choice([1, 3]))
        size = tuple(rng.integers(1, 80, 2).tolist())
        _, out = preprocess(device, frames, size, interpolation, planar=bool(rng.integers(2)))
        assert_close(out, resized(frames, size, interpolation))


def nothing_is_uploaded(array):
    raise AssertionError(f"{array.shape} was uploaded before the call was refused")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_size": (0, 9)}, "height: received 0, expected an integer of at least 1"),
        ({"size": (4, 0)}, "width: received 0, expected an integer of at least 1"),
        ({"frames": 0}, "frames: received 0, expected an integer of at least 1"),
        ({"channels": 2}, "channels: received 2, expected 1 or 3"),
        ({"interpolation": "cubic"}, "interpolation: received 'cubic', expected 'area' or 'linear'"),
        ({"frame_size": (16, 60000)}, "a frame of which 60000 bytes of a row become 32 pixels; expected at most 49136"),
    ],
)
def test_what_no_kernel_resizes_is_refused_before_anything_is_uploaded(changes, message):
    good = {"frame_size": (16, 16), "size": (4, 32), "frames": 1, "channels": 1, "interpolation": "area"}
    with pytest.raises(InputError, match=message):
        image_calls.preprocess(**{**good, **changes}, upload=nothing_is_uploaded, planar=True)


def test_tables_for_a_side_of_nothing_are_refused():
    with pytest.raises(InputError, match=r"sizes \(0, 4\) and \(4, 4\): expected sides of 1 px or more"):
        resize_tables((0, 4), (4, 4), "area")
