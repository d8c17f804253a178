"""The rules of studies/README.md as functions: what a set of comparisons decides. Nothing here looks at a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from twofold.study.statistics import ALPHA, Effect, holm, ties

At = TypeVar("At")
YES, NO, MIXED, OPEN = "yes", "no", "mixed", "not decided"
FROZEN_RANDOM, ONE_EXPERT = "frozen_random", "shared_lora_active"
"""Rivals whose ties have a meaning of their own: the router that never trains, and one LoRA of a single expert's rank."""


@dataclass(frozen=True)
class Verdict:
    """What is decided in one place (a data set × task), and why."""

    answer: str
    why: str
    p: float
    """Of the test that decides, corrected over the study's places by Holm."""


def needed(places: Mapping[At, Mapping[str, Effect]], margin: float, rivals: Sequence[str]) -> dict[At, Verdict]:
    """Place → whether the soft router is needed there, from its effects against the rivals that were run (place → rival → effect).

    Yes: it beats every one of `rivals`, the largest p below .05 after Holm over the places. No: some rival ties with it or is
    significantly better. Else, also where it beats all that were run but not all were, it is not decided. Raises ValueError for a
    place without any.
    """
    if empty := [place for place, run in places.items() if not run]:
        raise ValueError(f"{empty[0]}: no rival to compare with")
    worst = {place: max((one_sided(found), rival) for rival, found in run.items())[1] for place, run in places.items()}
    corrected = dict(zip(places, holm([one_sided(places[place][worst[place]]) for place in places]), strict=True))
    absent = {place: [rival for rival in rivals if rival not in run] for place, run in places.items()}
    return {place: _needed(run, absent[place], worst[place], corrected[place], margin) for place, run in places.items()}


def one_sided(found: Effect) -> float:
    """The p of "A is better": the two-sided one where A's mean is higher, 1 where it is not."""
    return found.p if found.mean > 0 else 1.0


def _needed(run: Mapping[str, Effect], absent: Sequence[str], worst: str, p: float, margin: float) -> Verdict:
    tied = [rival for rival, found in run.items() if ties(found, margin)]
    better = [rival for rival, found in run.items() if found.mean < 0 and found.p < ALPHA]
    little = [rival for rival in better if rival in tied]
    if p < ALPHA and not absent:
        return Verdict(YES, f"beats all {len(run)} rivals; the closest test is against {worst}, {signed(run[worst].mean)}", p)
    if tied or better:
        groups = {
            "better than it": [rival for rival in better if rival not in little],
            f"better than it, by less than {margin:g}": little,
            f"equal within {margin:g}": [rival for rival in tied if rival not in little],
        }
        parts = [f"{what}: {', '.join(rivals)}" for what, rivals in groups.items() if rivals]
        return Verdict(NO, "; ".join([*parts, *_of_random(run, tied)]), p)
    beaten = sum(one_sided(found) < ALPHA for found in run.values())
    blind = max(found.detectable for found in run.values())
    missing = f"; {', '.join(absent)} not run here" if absent else ""
    return Verdict(
        OPEN, f"beats {beaten} of {len(run)} rivals, ties with none{missing}; the widest has 80 % power only from {blind:.3f} on", p
    )


def _of_random(run: Mapping[str, Effect], tied: Sequence[str]) -> list[str]:
    """What a tie with the frozen random router means."""
    if FROZEN_RANDOM not in tied:
        return []
    over = run.get(ONE_EXPERT)
    if over is not None and one_sided(over) < ALPHA:
        return [f"it gains over {ONE_EXPERT}, and so does a random router: the gain is that of the extra rank"]
    return ["a random router does as well: the learned one adds nothing"]


def better(places: Mapping[At, Effect], margin: float) -> dict[At, Verdict]:
    """Place → whether A is better than B there: interference for specialists − one LoRA. Holm over the places."""
    corrected = dict(zip(places, holm([found.p for found in places.values()]), strict=True))
    return {place: gains(found, corrected[place], margin) for place, found in places.items()}


def gains(found: Effect, p: float, margin: float) -> Verdict:
    """Whether A is better than B: yes where it is and p < .05, no where they tie or B is significantly better, else not decided."""
    seeds = "" if found.up is None else f", higher with {found.up} of {found.seeds[0]} seeds"
    told = f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}], {found.queries:,} queries{seeds}"
    if p < ALPHA:
        return Verdict(YES if found.mean > 0 else NO, told, p)
    if ties(found, margin):
        return Verdict(NO, f"{told}: a tie (90 % interval inside ±{margin:g})", p)
    return Verdict(OPEN, f"{told}: 80 % power only from {found.detectable:.3f} on", p)


def together(verdicts: Sequence[Verdict]) -> str:
    """Several places as one answer: yes or no where all say so, mixed where some say yes and some no, else not decided."""
    answers = {verdict.answer for verdict in verdicts}
    if len(answers) == 1:
        return next(iter(answers))
    return MIXED if {YES, NO} <= answers else OPEN


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}".replace("-", "−")
