"""Bugs that are planted into the CUDA sources on images and maps: each is found by what the tests look at."""

import shutil
from pathlib import Path

import pytest

from tests.emulation.build import SOURCES, LaunchError, build
from tests.runtime.kernels.cuda import image_examination
from tests.runtime.kernels.cuda.planting import OVERFLOW, QUICK, SANITIZED, Bug, names, plant, sanitized

KERNELS = ("smooth.cu", "pse.cu", "saliency.cu", "frame_map.cu", "preprocess.cu")

# Sources that are right under one order of the threads only.
RACES = [
    Bug(
        "pixels_are_not_waited_for",
        "separable.cuh",
        "    __syncthreads();\n\n    for (int i = thread",
        "    for (int i = thread",
        "smooth.cu",
    ),
    Bug(
        "filtered_rows_are_not_waited_for",
        "separable.cuh",
        "    __syncthreads();\n\n    const int first",
        "    const int first",
        "smooth.cu",
    ),
    Bug(
        "parts_of_warps_are_not_waited_for",
        "pse.cu",
        "    __syncthreads();\n    Part whole = shared[0];",
        "    Part whole = shared[0];",
        "pse.cu",
    ),
    Bug("bytes_of_a_row_are_not_waited_for", "preprocess.cu", "    __syncwarp();\n", "", "preprocess.cu"),
    Bug(
        "a_band_is_not_waited_for",
        "preprocess.cu",
        "        __syncthreads();\n        if (inside) {",
        "        if (inside) {",
        "preprocess.cu",
    ),
    Bug(
        "a_band_is_overwritten_while_it_is_read",
        "preprocess.cu",
        "        __syncthreads();\n    }\n    if (!inside)",
        "    }\n    if (!inside)",
        "preprocess.cu",
    ),
]

# Wrong, but inside all arrays, since nothing guards these runs.
MISTAKES = [
    Bug(
        "stride_of_filtered_rows",
        "separable.cuh",
        "filtered + first * filtered_pitch",
        "filtered + first * (filtered_pitch - 1)",
        "smooth.cu",
    ),
    Bug(
        "residual_outside_is_that_of_the_border",
        "pse.cu",
        "y < 0 || y >= job.height || x < 0 || x >= job.width",
        "y < 0 || y >= job.height",
        "pse.cu",
    ),
    Bug("stride_of_channels", "pse.cu", "channel * to.channel}", "channel * from.row}", "pse.cu"),
    Bug("stride_of_frames", "saliency.cu", "* job.positions + start", "* kQuad + start", "saliency.cu"),
    Bug(
        "warps_overwrite_each_others_maxima",
        "saliency.cu",
        "atomicMax(job.scores + blockIdx.z, largest)",
        "job.scores[blockIdx.z] = largest",
        "saliency.cu",
    ),
    Bug(
        "squares_of_the_last_pixels_alone",
        "saliency.cu",
        "if (job.squared)",
        "if (job.squared && count < kQuad)",
        "saliency.cu",
    ),
    Bug("tiles_are_counted_once", "pse.cu", "        job.finished[frame] = 0;\n", "", "pse.cu"),
    Bug(
        "weights_of_rows_and_columns_are_swapped",
        "frame_map.cu",
        "fmaf(weight[i], end - start, start)",
        "fmaf(down, end - start, start)",
        "frame_map.cu",
    ),
    Bug("stride_of_rows", "frame_map.cu", "job.rows.high[y] * job.width", "job.rows.high[y]", "frame_map.cu"),
    Bug("stride_of_planes", "preprocess.cu", "channel * pixels.height + y", "channel * y + y", "preprocess.cu"),
    Bug("halves_are_rounded_to_even", "preprocess.cu", "job.half_up ? ", "false ? ", "preprocess.cu"),
    Bug("a_bit_more_is_dropped", "preprocess.cu", "(lower >> 4)", "(lower >> 5 << 1)", "preprocess.cu"),
]

HANGS = [
    Bug(
        "the_last_block_is_not_waited_for",
        "pse.cu",
        "    __syncthreads();\n    if (static_cast",
        "    if (static_cast",
        "pse.cu",
    ),
    Bug(
        "barrier_for_pixels_of_the_frame_alone",
        "preprocess.cu",
        "        __syncthreads();\n        if (inside) {",
        "        if (inside) {\n            __syncthreads();",
        "preprocess.cu",
    ),
    Bug(
        "exchange_of_the_lanes_with_pixels_alone",
        "saliency.cu",
        "    largest = largest_of_warp(largest);",
        "    if (count > 0) largest = largest_of_warp(largest);",
        "saliency.cu",
    ),
    Bug(
        "exchange_of_the_first_row_alone",
        "smooth.cu",
        "    largest = largest_of_warp(largest);",
        "    if (x < job.width) largest = largest_of_warp(largest);",
        "smooth.cu",
    ),
]

OVERFLOWS = [
    Bug("quad_past_the_end_of_a_row", "smooth.cu", "x + kQuad > job.width", "x + 1 > job.width", "smooth.cu"),
    Bug(
        "row_below_the_image",
        "pse.cu",
        "if (y < 0 || y >= job.height || x < 0 || x >= job.width)",
        "if (y < 0 || x < 0 || x >= job.width)",
        "pse.cu",
    ),
    Bug("more_shared_memory_than_was_asked_for", "separable.cuh", "quads * kQuad + 1", "quads * kQuad + 5", "pse.cu"),
    Bug(
        "four_pixels_where_fewer_are_left",
        "quads.cuh",
        "if (count == kQuad && is_aligned(target, 16))",
        "if (is_aligned(target, 16))",
        "frame_map.cu",
    ),
    Bug("quad_past_the_end_of_a_map", "saliency.cu", "count < kQuad || ", "", "saliency.cu"),
    Bug(
        "piece_past_the_end_of_the_frame",
        "preprocess.cu",
        "offset + kPieceBytes <= row_bytes",
        "offset < row_bytes",
        "preprocess.cu",
    ),
]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources."""
    for path in SOURCES.glob("*.cu*"):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.mark.parametrize("kernels", KERNELS)
def test_sources_without_a_bug_pass(kernels, emulation_cache):
    image_examination.examine(build(emulation_cache, [kernels], flags=QUICK), kernels)
    finished = sanitized(image_examination, build(emulation_cache, [kernels], flags=SANITIZED), kernels)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("bug", names([*RACES, *MISTAKES]))
def test_wrong_values_are_found(bug, emulation_cache, sources):
    library = build(emulation_cache, [bug.kernels], plant(bug, sources), QUICK)
    with pytest.raises(AssertionError, match=r"Not equal to tolerance|Arrays are not equal"):
        image_examination.examine(library, bug.kernels)


@pytest.mark.parametrize("bug", names(HANGS))
def test_threads_that_hang_are_found(bug, emulation_cache, sources):
    library = build(emulation_cache, [bug.kernels], plant(bug, sources), QUICK)
    with pytest.raises(LaunchError, match="threads of a block wait for each other"):
        image_examination.examine(library, bug.kernels)


@pytest.mark.parametrize("bug", names(OVERFLOWS))
def test_memory_past_an_end_is_found(bug, emulation_cache, sources):
    finished = sanitized(
        image_examination, build(emulation_cache, [bug.kernels], plant(bug, sources), SANITIZED), bug.kernels
    )
    assert finished.returncode != 0
    assert OVERFLOW in finished.stderr
