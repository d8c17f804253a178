"""The rules of studies/README.md as functions: what a set of comparisons decides. Nothing here looks at a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twofold.study.statistics import ALPHA, Effect, holm, ties

YES, NO, MIXED, OPEN = "yes", "no", "mixed", "not decided"


@dataclass(frozen=True)
class Verdict:
    """What is decided in one place (a data set × task), and why."""

    answer: str
    why: str
    p: float
    """Of the test that decides, corrected over the study's places by Holm."""


def needed(places: Mapping[str, Mapping[str, Effect]], margin: float, frozen_random: str = "frozen_random") -> dict[str, Verdict]:
    """Place → whether the soft router is needed there, from its effects against every rival (place → rival → effect).

    Yes: it beats every rival, the largest p below .05 after Holm over the places. No: some rival ties with it or is significantly
    better. Else not decided. Raises ValueError for a place without rivals.
    """
    if empty := [place for place, rivals in places.items() if not rivals]:
        raise ValueError(f"{empty[0]}: no rival to compare with")
    worst = {place: max((one_sided(found), rival) for rival, found in rivals.items())[1] for place, rivals in places.items()}
    corrected = dict(zip(places, holm([one_sided(places[place][worst[place]]) for place in places]), strict=True))
    return {place: _needed(rivals, worst[place], corrected[place], margin, frozen_random) for place, rivals in places.items()}


def one_sided(found: Effect) -> float:
    """The p of "A is better": the two-sided one where A's mean is higher, 1 where it is not."""
    return found.p if found.mean > 0 else 1.0


def _needed(rivals: Mapping[str, Effect], worst: str, p: float, margin: float, frozen_random: str) -> Verdict:
    if p < ALPHA:
        return Verdict(YES, f"beats all {len(rivals)} rivals; the closest test is against {worst}, {signed(rivals[worst].mean)}", p)
    tied = [rival for rival, found in rivals.items() if ties(found, margin)]
    better = [rival for rival, found in rivals.items() if found.mean < 0 and found.p < ALPHA]
    if not tied and not better:
        blind = max(found.detectable for found in rivals.values())
        beaten = sum(one_sided(found) < ALPHA for found in rivals.values())
        return Verdict(OPEN, f"beats {beaten} of {len(rivals)} rivals, ties with none; differences below {blind:.3f} could not be seen", p)
    parts = [f"{', '.join(better)} better"] if better else []
    parts += [f"a tie (±{margin:g}) with {', '.join(tied)}"] if tied else []
    credit = "; the tie with the frozen random router credits the extra rank" if frozen_random in tied else ""
    return Verdict(NO, " and ".join(parts) + credit, p)


def interferes(places: Mapping[str, Effect], margin: float) -> dict[str, Verdict]:
    """Place → whether one LoRA on both tasks loses there, from the effects specialists − shared. Holm over the places."""
    corrected = dict(zip(places, holm([found.p for found in places.values()]), strict=True))
    return {place: gains(found, corrected[place], margin) for place, found in places.items()}


def gains(found: Effect, p: float, margin: float) -> Verdict:
    """Whether A is better than B: yes where it is and p < .05, no where they tie or B is significantly better, else not decided."""
    told = f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}], n = {found.queries}"
    if p < ALPHA:
        return Verdict(YES if found.mean > 0 else NO, told, p)
    if ties(found, margin):
        return Verdict(NO, f"{told}: a tie (90 % interval inside ±{margin:g})", p)
    return Verdict(OPEN, f"{told}: differences below {found.detectable:.3f} could not be seen", p)


def together(verdicts: Sequence[Verdict]) -> str:
    """Several places as one answer: yes or no where all say so, mixed where some say yes and some no, else not decided."""
    answers = {verdict.answer for verdict in verdicts}
    if len(answers) == 1:
        return next(iter(answers))
    return MIXED if {YES, NO} <= answers else OPEN


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}".replace("-", "−")
