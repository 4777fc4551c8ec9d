from pathlib import Path

import numpy as np
import pytest

from flawline.calibration.split import draw, split, split_classes
from flawline.runtime import InputError

IMAGES = [Path(f"part{i // 4:02}_shot{i % 4}.png") for i in range(100)]


def take(images=IMAGES, rate=0.05, calibration_images=None, group_by=None, seed=0):
    return split(images, false_reject_rate=rate, calibration_images=calibration_images, group_by=group_by, seed=seed)


def test_every_image_is_on_exactly_one_side():
    fitted, held_out = take()
    assert len(held_out) == 20
    assert sorted(fitted + held_out) == IMAGES


def test_the_rate_raises_the_number_held_out():
    assert len(take(rate=0.02)[1]) == 49


def test_groups_are_never_torn():
    fitted, held_out = take(group_by=r"part(\d+)")
    assert {path.name[:6] for path in fitted}.isdisjoint(path.name[:6] for path in held_out)
    assert len(held_out) >= 20


def test_a_seed_gives_one_split_and_another_gives_another():
    assert take(seed=1) == take(seed=1)
    assert take(seed=1) != take(seed=2)


@pytest.mark.parametrize(
    ("count", "rate", "message"),
    [
        (0, 0.05, "0 good images"),
        (2, 0.05, "expected at least 4"),
        (10, 0.05, r"smallest rate that can be had is 0.125 \(--false-reject-rate\)"),
        (100, 0.001, "needs 999 held-out images"),
    ],
)
def test_too_few_images_are_refused_with_what_can_be_had(count, rate, message):
    with pytest.raises(InputError, match=message):
        take(IMAGES[:count], rate=rate)


def test_the_smallest_rate_that_is_named_is_granted():
    assert len(take(IMAGES[:10], rate=0.125)[1]) == 7


@pytest.mark.parametrize(("count", "wanted", "rate"), [(40, None, "0.027"), (40, 9, "0.1"), (40, 90, "0.027")])
def test_the_smallest_rate_that_is_named_is_granted_to_classes(count, wanted, rate):
    labels = np.arange(count) % 2
    with pytest.raises(
        InputError, match=rf"smallest rate that can be had is {rate}\d* \(--false-reject-rate\)"
    ) as info:
        split_classes(labels, false_reject_rate=0.001, calibration_images=wanted, seed=0)
    named = float(str(info.value).split(" is ")[-1].split()[0]) + 1e-4
    held_out = split_classes(labels, false_reject_rate=named, calibration_images=min(wanted or 36, 36), seed=0)[1]
    assert len(held_out) == round(1 / named - 1)


def test_two_images_of_each_class_leave_none_to_hold_out():
    with pytest.raises(InputError, match="4 images of 2 classes; expected at least 5: two of each class to fit"):
        split_classes(np.array([0, 1, 1, 0]), false_reject_rate=0.5, calibration_images=None, seed=0)


def test_a_split_that_leaves_nothing_to_fit_is_refused():
    with pytest.raises(InputError, match="leaves 0 to fit"):
        take(group_by="p(a)rt")


@pytest.mark.parametrize(
    ("expression", "message"), [("(", "no regular expression"), ("roll", "matches nothing in part00")]
)
def test_a_bad_group_expression_is_refused(expression, message):
    with pytest.raises(InputError, match=message):
        take(group_by=expression)


def test_draw_keeps_order_and_refuses_more_than_there_are():
    drawn = draw(IMAGES, 10, seed=0)
    assert len(drawn) == 10
    assert drawn == sorted(drawn)
    with pytest.raises(InputError, match="101 images to fit"):
        draw(IMAGES, 101, seed=0)
