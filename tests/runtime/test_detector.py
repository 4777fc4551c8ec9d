import numpy as np
import pytest

from flawline.runtime import Detector, FlawlineError, InputError
from flawline.runtime.images import list_images, read_image


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    with Detector.open(tiny_bundle) as opened:
        yield opened


@pytest.fixture
def good(good_images):
    return read_image(list_images(good_images)[0])


@pytest.fixture
def flawed(good):
    frame = good.copy()
    frame[40:56, 60:76] = 10
    return frame


def test_a_flaw_is_rejected_and_boxed_where_it_is(detector, flawed):
    result = detector(flawed)
    assert result.verdict == "reject"
    assert result.p_value == pytest.approx(1 / (detector.bundle.manifest.threshold.calibration_images + 1))
    region = result.regions[0]
    assert region.x < 68 < region.x + region.width
    assert region.y < 48 < region.y + region.height
    assert region.peak == pytest.approx(result.score)


def test_a_good_frame_passes_with_no_region(detector, good):
    result = detector(good)
    assert result.verdict == "good"
    assert result.regions == []
    assert result.p_value > 0.05


def test_the_score_is_the_maximum_of_the_map_and_repeats_bit_for_bit(detector, flawed):
    first, second = detector(flawed), detector(flawed)
    assert first.score == first.map.max() == second.score
    np.testing.assert_array_equal(first.map, second.map)


def test_a_result_outlives_the_next_frame(detector, good, flawed):
    result = detector(flawed)
    kept = result.map.copy()
    detector(good)
    np.testing.assert_array_equal(result.map, kept)


def test_the_number_of_threads_does_not_change_the_kernel_but_little_in_the_network(tiny_bundle, flawed):
    with Detector.open(tiny_bundle, threads=1) as one, Detector.open(tiny_bundle, threads=2) as two:
        assert one(flawed).score == pytest.approx(two(flawed).score, rel=1e-5)


def test_the_threshold_may_be_moved_at_run_time(tiny_bundle, flawed):
    with Detector.open(tiny_bundle) as detector:
        detector.threshold = 1e9
        assert detector(flawed).verdict == "good"
        detector.threshold = 0.0
        result = detector(flawed)
    assert result.verdict == "reject"
    assert result.threshold == 0.0


def test_p_values_count_calibration_scores_at_least_as_high(detector):
    scores = np.asarray(detector.bundle.statistics["calibration_scores"])
    count = len(scores)
    assert detector.p_value(float(scores[-1]) * 2) == 1 / (count + 1)
    assert detector.p_value(float(scores[-1])) == 2 / (count + 1)
    assert detector.p_value(0.0) == 1.0


def test_a_frame_of_another_size_is_resized(detector, flawed):
    larger = np.kron(flawed, np.ones((2, 2), np.uint8))
    assert detector(larger).score == pytest.approx(detector(flawed).score, rel=0.05)
    assert detector(larger).regions[0].x == pytest.approx(2 * detector(flawed).regions[0].x, abs=2)


def test_grey_frames_may_carry_their_channel(detector, good):
    assert detector(good[..., None]).score == detector(good).score


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((96, 128, 3), np.uint8),
        np.zeros((96, 128), np.float32),
        np.zeros((96, 128), np.uint16),
        np.zeros((0, 128), np.uint8),
        np.zeros(128, np.uint8),
        np.zeros((2, 96, 128, 1), np.uint8),
    ],
    ids=lambda frame: f"{frame.dtype}{frame.shape}",
)
def test_a_frame_of_the_wrong_form_is_refused(detector, frame):
    with pytest.raises(InputError, match=r"this bundle takes uint8 \(height, width\)"):
        detector(frame)


def test_something_that_is_no_array_is_refused(detector):
    with pytest.raises(InputError, match="list"):
        detector([[0]])


@pytest.mark.parametrize(
    ("arguments", "message"), [({"backend": "abacus"}, "abacus"), ({"threads": 0}, "threads is 0")]
)
def test_unknown_engines_and_no_threads_are_refused(tiny_bundle, arguments, message):
    with pytest.raises(InputError, match=message):
        Detector.open(tiny_bundle, **arguments)


def test_an_infinite_score_is_an_error_never_a_verdict(tiny_bundle, flawed, monkeypatch):
    with Detector.open(tiny_bundle) as detector:
        monkeypatch.setattr(
            detector._scorer._extractor,
            "run",
            lambda: tuple(np.full_like(m, np.nan) for m in detector._scorer._extractor.maps),
        )
        with pytest.raises(FlawlineError, match="score is nan"):
            detector(flawed)
