"""The pre-registered rules, on effects whose right answer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twofold.study.statistics import Effect
from twofold.study.verdict import MIXED, NO, OPEN, YES, Verdict, better, needed, one_sided, together


def gain(mean: float, p: float, width: float = 0.02) -> Effect:
    """An effect with an interval of a certain half-width."""
    return Effect(0.5 + mean, 0.5, mean, mean - width, mean + width, mean - 0.84 * width, mean + 0.84 * width, p, 0.1, 0.03, 300, (3, 3))


WIN, TIE, LOSS, UNSURE = gain(0.03, 0.001), gain(0.001, 0.8, 0.005), gain(-0.03, 0.001), gain(0.01, 0.3)
RIVALS = ("shared", "mean", "frozen_random")


def decide(**run: Effect) -> Verdict:
    return needed({"place": run}, 0.01, RIVALS)["place"]


def test_needed_is_to_beat_every_rival() -> None:
    assert decide(shared=WIN, mean=WIN, frozen_random=WIN).answer == YES
    assert decide(shared=WIN, mean=WIN, frozen_random=UNSURE).answer == OPEN


def test_a_tie_with_any_rival_is_a_no_and_the_random_router_takes_the_credit() -> None:
    found = decide(shared=WIN, mean=WIN, frozen_random=TIE)
    assert found.answer == NO and found.why.endswith("a random router does as well: the learned one adds nothing")
    gained = needed({"place": {"shared_lora_active": WIN, "frozen_random": TIE}}, 0.01, ["shared_lora_active", "frozen_random"])["place"]
    assert gained.answer == NO and gained.why.endswith("the gain is that of the extra rank")
    other = decide(shared=WIN, mean=TIE, frozen_random=WIN)
    assert other.answer == NO and "random" not in other.why and other.why == "equal within 0.01: mean"


def test_rivals_are_told_by_how_they_stand() -> None:
    small = gain(-0.004, 0.001)
    close = replace(small, low90=-0.006, high90=-0.002)
    found = decide(shared=LOSS, mean=close, frozen_random=WIN)
    assert found.answer == NO and found.why == "better than it: shared; better than it, by less than 0.01: mean"


def test_a_better_rival_is_a_no() -> None:
    assert decide(shared=LOSS, mean=WIN, frozen_random=WIN).answer == NO


def test_a_rival_that_was_not_run_keeps_yes_away() -> None:
    found = decide(shared=WIN, mean=WIN)
    assert found.answer == OPEN and "frozen_random not run here" in found.why


def test_the_largest_p_counts_and_a_loss_counts_as_one() -> None:
    assert one_sided(WIN) == 0.001 and one_sided(LOSS) == 1.0
    assert decide(shared=gain(0.03, 0.02), mean=WIN, frozen_random=WIN).p == 0.02


def test_holm_runs_over_the_places() -> None:
    """.03 in each of two places is .06 in both, which alone would have been enough."""
    run = {"shared": gain(0.03, 0.03), "mean": WIN, "frozen_random": WIN}
    assert needed({"one": run}, 0.01, RIVALS)["one"].answer == YES
    both = needed({"one": run, "two": run}, 0.01, RIVALS)
    assert [verdict.answer for verdict in both.values()] == [OPEN, OPEN] and both["one"].p == pytest.approx(0.06)


def test_a_place_needs_a_rival() -> None:
    with pytest.raises(ValueError, match="one: no rival"):
        needed({"one": {}}, 0.01, RIVALS)


def test_better_is_decided_by_sign_tie_or_not_at_all() -> None:
    found = better({"win": WIN, "tie": TIE, "loss": LOSS, "unsure": UNSURE}, 0.01)
    assert {place: verdict.answer for place, verdict in found.items()} == {"win": YES, "tie": NO, "loss": NO, "unsure": OPEN}
    assert "80 % power only from" in found["unsure"].why and "a tie" in found["tie"].why and "300 queries" in found["win"].why


@pytest.mark.parametrize(
    ("answers", "whole"), [((YES, YES), YES), ((NO,), NO), ((YES, NO, OPEN), MIXED), ((YES, OPEN), OPEN), ((NO, OPEN), OPEN)]
)
def test_several_places_are_one_answer(answers: tuple[str, ...], whole: str) -> None:
    assert together([Verdict(answer, "", 0.0) for answer in answers]) == whole
