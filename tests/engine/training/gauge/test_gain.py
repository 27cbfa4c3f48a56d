"""What scores of the probe say of a run: whether it has gained, and whether it still does."""

import pytest

from napari_affmae.engine.training.gauge.gain import gain_of, judge_scores

RISING = [0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75]


def by_step(scores, first=0):
    return {first + 10 * number: score for number, score in enumerate(scores)}


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (RISING, "still rises"),
        ([0.3, 0.5, 0.6, 0.62, 0.618, 0.622, 0.621, 0.619, 0.62], "no longer rises"),
        ([0.5, 0.6, 0.5, 0.62, 0.5, 0.61, 0.52, 0.63, 0.5], "no longer rises"),
    ],
)
def test_scores_are_judged_by_their_last_two_thirds(scores, told):
    assert f"; it {told}" in judge_scores(by_step(scores), "em-nano")
    assert judge_scores(by_step(scores, first=10), "em-nano").startswith(f"the probe {told}")


def test_few_scores_are_not_judged():
    assert "rises" not in judge_scores(by_step([0.1, 0.2, 0.3, 0.4, 0.5]), None)
    assert judge_scores(by_step([0.1, 0.2, 0.3, 0.4, 0.5], first=10), None) is None


@pytest.mark.parametrize(
    ("scores", "is_clear", "margin"),
    [
        ([0.5, 0.522], True, 0.02),
        ([0.5, 0.518], False, 0.02),
        ([0.5, 0.4], False, 0.02),
        # A score that jumps by 0.02 from one validation to the next says nothing of 0.03.
        ([0.5, 0.51, 0.53, 0.51, 0.53], False, 0.04),
        # What it has gained in its earlier half is no jumping.
        ([0.5, 0.6, 0.7, 0.701, 0.7], True, 0.02),
        (RISING, True, 0.1),
    ],
)
def test_a_gain_is_more_than_scores_jump_by(scores, is_clear, margin):
    gain = gain_of(by_step(scores))
    assert (gain.start, gain.end) == (scores[0], scores[-1])
    assert gain.is_clear is is_clear
    assert gain.margin == pytest.approx(margin)
    told = judge_scores(by_step(scores), "em-nano")
    words = "become better than those of em-nano" if is_clear else "em-nano would do as well"
    assert words in told


def test_without_a_start_there_is_no_gain():
    assert gain_of({}) is gain_of({0: 0.5}) is gain_of({10: 0.5, 20: 0.6}) is None
    assert judge_scores({}, "em-nano") is None
