"""Real parts, magnetic tiles, laid on a noisy conveyor at random distances."""

import cv2
import numpy as np
import pytest

from flawline.export.fit import FitOptions, fit_bundle
from flawline.runtime.cameras import BlockInfo, Status, open_source
from flawline.runtime.detector import Detector
from flawline.runtime.images import list_images, read_image, write_image
from flawline.runtime.stream import Block, Defect, Frame, PartAssembler, PartOptions, run

WIDTH, FRAME_LINES, MARGIN = 256, 256, 16
PART = (208, 208)

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def tiles(shared_data):
    """Good tiles, each brought to 208 x 208 px."""
    paths = list_images(shared_data / "magnetic_tile" / "train" / "good")[:180]
    return [cv2.resize(read_image(path), PART[::-1], interpolation=cv2.INTER_AREA) for path in paths]


def conveyor(tiles, grey, seed):
    """Tiles on a conveyor, at least the rest of a frame apart: uint8 (lines, 256), and their first lines."""
    generator = np.random.default_rng(seed)
    stretches, begins, line = [], [], 0
    for tile in tiles:
        empty = int(generator.integers(64, 300))
        begins.append(line + empty)
        line += empty + PART[0]
        laid = np.full((empty + PART[0], WIDTH), float(grey))
        laid[empty:, 24 : 24 + PART[1]] = tile
        stretches.append(laid)
    web = np.concatenate([*stretches, np.full((64, WIDTH), float(grey))])
    return np.clip(web + generator.normal(0, 5, web.shape), 0, 255).astype(np.uint8), begins


@pytest.mark.parametrize("grey", [20, 235])
@pytest.mark.parametrize("block", [64, 333])
def test_every_tile_is_found_within_two_lines(tiles, grey, block):
    web, begins = conveyor(tiles, grey, seed=block)
    assembler, found = PartAssembler(FRAME_LINES, (WIDTH,), PartOptions(margin_lines=MARGIN)), []
    for line in range(0, len(web), block):
        lines = web[line : line + block]
        for piece in assembler.add(Block(lines, BlockInfo(Status.OK, line, len(lines)))):
            assert isinstance(piece, Frame)
            found.append(piece.first_line + MARGIN)
    offsets = np.array(found) - begins
    assert np.abs(offsets).max() <= 2
    assert (offsets == 0).mean() > 0.9
    assert assembler.lines_without_part == len(web) - len(tiles) * FRAME_LINES


@pytest.mark.slow
def test_tiles_on_a_conveyor_score_as_their_pictures(tiles, list_sink, tmp_path):
    (tmp_path / "good").mkdir()
    web, begins = conveyor(tiles[:120], 20, seed=1)
    for begin in begins:
        write_image(tmp_path / "good" / f"{begin:06}.png", web[begin - MARGIN :][:FRAME_LINES])
    options = FitOptions(image_size=128, dimension=32, threads=2)
    bundle = fit_bundle(list_images(tmp_path / "good"), tmp_path / "tile.flaw", options)
    web, begins = conveyor(tiles[120:], 20, seed=2)
    write_image(tmp_path / "web.png", web)
    with Detector(bundle, backend="onnxruntime", threads=2) as detector:
        detector.threshold = 0.0
        source = open_source(f"replay:{tmp_path / 'web.png'}?block=100")
        run(source, detector, [list_sink], frame_lines=FRAME_LINES, cut=PartOptions(margin_lines=MARGIN))
        source.close()
        found = {defect.first_line + MARGIN: defect.frame_score for defect in list_sink.of(Defect)}
        assert len(found) == len(begins)
        shifted = {}
        for (line, score), begin in zip(sorted(found.items()), begins, strict=True):
            # Of the very pixels, to the last bit; of the picture as it was laid, as far as the offset allows.
            assert detector(web[line - MARGIN :][:FRAME_LINES]).score == score
            shifted[begin] = score / detector(web[begin - MARGIN :][:FRAME_LINES]).score - 1
        exact = [begin in found for begin in begins]
        assert np.mean(exact) > 0.9
        assert all(error == 0 for begin, error in shifted.items() if begin in found)
        assert np.abs(list(shifted.values())).max() < 0.3
        # A model of every position knows parts where they lay when it was fitted: four lines further on they are others.
        errors = [
            detector(web[begin - MARGIN + 4 :][:FRAME_LINES]).score
            / detector(web[begin - MARGIN :][:FRAME_LINES]).score
            for begin in begins
        ]
        assert np.median(errors) > 1.1
