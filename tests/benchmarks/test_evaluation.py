import json
import shutil

import numpy as np
import pytest

from flawline.__main__ import main
from flawline.benchmarks import metrics
from flawline.benchmarks.datasets import read_mvtec
from flawline.benchmarks.evaluation import Computed, evaluate, read_mask, score_items, upsample
from flawline.runtime import Detector
from flawline.runtime.errors import InputError


def scored_tiles(bundle, tiles):
    with Detector.open(bundle) as detector:
        return list(score_items(detector, read_mvtec(tiles).test)), detector.threshold


def test_evaluation_agrees_with_the_metrics_on_whole_arrays(tile_bundle, tiles):
    scored, threshold = scored_tiles(tile_bundle, tiles)
    found = evaluate(scored, threshold)
    labels = np.array([one.item.is_defective for one in scored])
    scores = np.array([one.score for one in scored])
    assert found.image_auroc == metrics.image_auroc(labels, scores)
    assert (found.images, found.defective, found.empty_masks) == (26, 14, 1)
    assert found.false_rejects == np.count_nonzero(scores[~labels] > threshold)
    assert found.misses == np.count_nonzero(scores[labels] <= threshold)

    known = [one for one in scored if one.item.mask is None or read_mask(one.item.mask, one.size).any()]
    maps = [upsample(one.map, one.size) for one in known]
    masks = [np.zeros(one.size, bool) if one.item.mask is None else read_mask(one.item.mask, one.size) for one in known]
    assert found.pixel_auroc == metrics.pixel_auroc(maps, masks)
    assert found.aupro == metrics.aupro(maps, masks)
    assert found.pixel_auroc > 0.6
    assert [(kind.kind, kind.images) for kind in found.kinds] == [("good", 12), ("bar", 6), ("spot", 8)]


def test_two_runs_are_equal_bit_for_bit(tile_bundle, tiles, capsys):
    outputs = []
    for threads in ("1", "1", "2"):
        assert (
            main(["evaluate", str(tile_bundle), str(tiles), "--json", "--backend", "onnxruntime", "--threads", threads])
            == 0
        )
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2]
    result = json.loads(outputs[0])
    assert len(result["results"]) == 26
    assert {one["verdict"] for one in result["results"]} <= {"good", "reject"}


def test_text_names_the_settings_and_the_empty_mask(tile_bundle, tiles, capsys):
    assert main(["evaluate", str(tile_bundle), str(tiles)]) == 0
    printed = capsys.readouterr().out
    assert "map 8 x 8" in printed
    assert "epsilon" in printed
    assert "empty masks              1" in printed


def test_without_masks_there_are_no_pixel_metrics(tile_bundle, tiles, tmp_path):
    shutil.copytree(tiles / "test", tmp_path / "test")
    found = evaluate(*scored_tiles(tile_bundle, tmp_path))
    assert found.pixel_auroc is None
    assert found.aupro is None


def test_one_class_is_refused_in_one_line(tile_bundle, tiles, tmp_path, capsys):
    shutil.copytree(tiles / "test/good", tmp_path / "test/good")
    assert main(["evaluate", str(tile_bundle), str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "all good" in error
    assert error.count("\n") == 1


def test_mask_of_another_size_is_refused(tiles):
    with pytest.raises(InputError, match="mask of 72 x 72 px, its image has 72 x 71 px"):
        read_mask(next((tiles / "ground_truth/spot").iterdir()), (71, 72))


def test_computed_sequence_makes_each_element_when_asked():
    made = []
    sequence = Computed(3, lambda index: made.append(index) or index * 10)
    assert len(sequence) == 3
    assert made == []
    assert list(sequence) == [0, 10, 20]
    assert sequence[1:] == [10, 20]
    with pytest.raises(IndexError):
        sequence[3]
