"""Bugs that are planted into the CUDA sources: each is found by what the tests of the kernels look at."""

import re
import shutil
from pathlib import Path

import pytest

from tests.emulation.build import SOURCES, LaunchError, build
from tests.runtime.kernels.cuda import examination
from tests.runtime.kernels.cuda.planting import OVERFLOW, QUICK, SANITIZED, Bug, names, plant, sanitized

# Sources that are right under one order of the threads only.
RACES = [
    Bug("embedded_vectors_are_not_waited_for", "distances.cu", "    __syncthreads();\n", ""),
    Bug(
        "centred_vectors_are_not_waited_for",
        "items.cuh",
        "            __syncthreads();\n\n            const auto* columns",
        "\n            const auto* columns",
    ),
    Bug(
        "sums_are_not_waited_for",
        "items.cuh",
        "            __syncthreads();\n\n            if (warp == 0",
        "\n            if (warp == 0",
    ),
    Bug(
        "tiles_are_not_waited_for",
        "projected.cu",
        "            __syncthreads();\n            for (int c = 0",
        "            for (int c = 0",
        "projected.cu",
    ),
    Bug(
        "tiles_are_overwritten_while_they_are_read",
        "projected.cu",
        "            __syncthreads();\n        }\n        for (int j",
        "        }\n        for (int j",
        "projected.cu",
    ),
    Bug(
        "projected_vectors_are_not_waited_for",
        "projected.cu",
        "    __syncthreads();\n}\n\ntemplate",
        "}\n\ntemplate",
        "projected.cu",
    ),
]

# Wrong, but inside all arrays, since nothing guards these runs.
MISTAKES = [
    Bug("stride_of_channels", "maps.cuh", "channel(static_cast<int64>(map.height) * map.width)", "channel(map.width)"),
    Bug("stride_of_frames", "maps.cuh", "frame * map.channels * channel", "frame * channel"),
    Bug("stride_of_rows", "maps.cuh", "map.rows.low[y] * map.width", "map.rows.low[y] * (map.width - 1)"),
    Bug("stride_of_blocks", "whitening.cuh", "block * (block - 1) / 2", "block * (block - 2) / 2"),
    Bug("stride_of_means", "items.cuh", "work.means + component * dimension", "work.means + gaussian * dimension"),
    Bug(
        "component_is_centred_twice",
        "items.cuh",
        "const bool copied = work.components > 1",
        "const bool copied = false",
    ),
    Bug("nan_is_never_nearest", "items.cuh", " || squared != squared", ""),
    Bug("groups_of_lanes_are_left_out", "whitening.cuh", "step = kColumnLanes; step", "step = 2 * kColumnLanes; step"),
    Bug("stride_of_pieces", "projected.cu", "/ kPiece) * dimension;", "/ kPiece) * (dimension - 1);", "projected.cu"),
]

HANGS = [
    Bug(
        "barrier_for_the_busy_alone",
        "items.cuh",
        "            __syncthreads();\n\n            if (warp",
        "            if (busy) __syncthreads();\n\n            if (warp",
    ),
    Bug(
        "exchange_without_the_lanes_of_no_block",
        "whitening.cuh",
        "norm += gather(lane, squares)",
        "if (block >= 0) norm += gather(lane, squares)",
    ),
    Bug(
        "barrier_in_a_loop_of_unequal_turns",
        "projected.cu",
        "corners.at(channel - start) : 0;",
        "corners.at(channel - start) : 0;\n                if (channel >= source.channels) __syncthreads();",
        "projected.cu",
    ),
]

OVERFLOWS = [
    Bug("vector_that_is_not_on_the_list", "items.cuh", "vector.x >= 0 && ", "", "projected.cu"),
    Bug("frame_that_did_not_come", "items.cuh", "vector.x < work.frames", "vector.x <= work.frames"),
    Bug("next_map_comes_a_channel_late", "projected.cu", "channel >= start", "channel > start", "projected.cu"),
    Bug(
        "columns_past_the_last_one",
        "whitening.cuh",
        "column < columns ? load_once(source) : make_uint4(0, 0, 0, 0)",
        "load_once(source)",
    ),
    Bug("line_past_a_factor_is_fetched", "whitening.cuh", "back = 1 + thread", "back = thread"),
    Bug("items_past_the_last_one", "items.cuh", "    if (item >= work.items) return make_int2(-1, 0);\n", ""),
    Bug(
        "more_shared_memory_than_was_asked_for",
        "items.cuh",
        "even(dimension) * kVectors + 4",
        "even(dimension) * kVectors + 8",
    ),
    Bug(
        "channels_past_the_last_one",
        "projected.cu",
        "channel < source.channels ? corners.at(channel - start) : 0",
        "corners.at(channel - start)",
        "projected.cu",
    ),
    Bug("rows_past_the_last_one", "projected.cu", "first_row + tile_row < dimension && ", "", "projected.cu"),
]


def examined_sources(folder: Path) -> Path:
    """A copy of the sources with the one instance of each kernel that is examined."""
    for path in SOURCES.glob("*.cuh"):
        shutil.copy(path, folder)
    for name in ("distances.cu", "projected.cu"):
        text = (SOURCES / name).read_text()
        others = rf"^FLAWLINE_(DISTANCES|PROJECTED)\((?!{examination.KERNEL}\)).*\n"
        trimmed, count = re.subn(others, "", text, flags=re.MULTILINE)
        assert count == 11
        (folder / name).write_text(trimmed)
    return folder


@pytest.mark.parametrize("kernels", ["distances.cu", "projected.cu"])
def test_sources_without_a_bug_pass(kernels, emulation_cache, tmp_path):
    folder = examined_sources(tmp_path)
    examination.examine(build(emulation_cache, [kernels], folder, QUICK), kernels)
    finished = sanitized(examination, build(emulation_cache, [kernels], folder, SANITIZED), kernels)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("bug", names([*RACES, *MISTAKES]))
def test_wrong_distances_are_found(bug, emulation_cache, tmp_path):
    library = build(emulation_cache, [bug.kernels], plant(bug, examined_sources(tmp_path)), QUICK)
    with pytest.raises(AssertionError, match=r"Not equal to tolerance|Arrays are not equal"):
        examination.examine(library, bug.kernels)


@pytest.mark.parametrize("bug", names(HANGS))
def test_threads_that_hang_are_found(bug, emulation_cache, tmp_path):
    library = build(emulation_cache, [bug.kernels], plant(bug, examined_sources(tmp_path)), QUICK)
    with pytest.raises(LaunchError, match="threads of a block wait for each other"):
        examination.examine(library, bug.kernels)


@pytest.mark.parametrize("bug", names(OVERFLOWS))
def test_memory_past_an_end_is_found(bug, emulation_cache, tmp_path):
    finished = sanitized(
        examination,
        build(emulation_cache, [bug.kernels], plant(bug, examined_sources(tmp_path)), SANITIZED),
        bug.kernels,
    )
    assert finished.returncode != 0
    assert OVERFLOW in finished.stderr


def test_bug_whose_place_is_gone_is_no_bug_that_was_found(tmp_path):
    with pytest.raises(AssertionError, match=r"has its place 0 times, not once"):
        plant(RACES[0]._replace(before="no such text"), examined_sources(tmp_path))
