"""The nine questions: each study's evidence under its rule, as yes, no, mixed or not decided, with effect size, interval and n."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twofold.study.blocks import Answer
from twofold.study.evidence import Evidence, Place
from twofold.study.probing import specialised
from twofold.study.statistics import Effect, ties
from twofold.study.verdict import MIXED, NO, OPEN, YES, Verdict, better, needed, together

QUESTIONS = {
    1: "Does retrieval interfere with reranking when they share weights?",
    2: "Is soft routing the cure?",
    3: "Does the router look at the input, or is it the task's id again?",
    4: "Do the experts learn different things?",
    5: "Does what one task learns carry over to the other?",
    6: "Does it matter where the capacity is?",
    7: "Does routing cost anything?",
    8: "Is the answer the same for larger and other backbones?",
    9: "Does a new expert pay when the domain shifts?",
}
COSTLY = 1.05
"""A mixture's forward pass over one LoRA's from which the answer to question 7 is yes: with all of the interval, in every setting."""
COSTS = ("mixture / peft_one", "mixture / bare", "folded / bare")


def answer(evidence: Evidence, probed: Mapping[str, list[dict[str, Any]]], results: Path) -> Answer | None:
    """The answer of a study to its question; None where it has none.

    `probed`: probe → its reports; `results`: the folder of all results.
    """
    number = evidence.study.study.question
    if number is None:
        return None
    if number == 7:
        return _answer(evidence, *cost(results))
    if not evidence.cells:
        return _answer(evidence, OPEN, [])
    if number == 4:
        return _answer(evidence, *specialised(probed.get("knockout", [])))
    if number == 9:
        return _answer(evidence, *paying(evidence))
    verdicts, why = judged(evidence)
    if number == 8:
        backbones = {name: together([v for at, v in verdicts.items() if at.backbone == name]) for name in evidence.study.backbones}
        same = len(set(backbones.values())) == 1 and OPEN not in backbones.values()
        found = YES if same else NO if {YES, NO} <= set(backbones.values()) or MIXED in backbones.values() else OPEN
        return _answer(evidence, found, [*(f"{name}: {each}" for name, each in backbones.items()), *why])
    return _answer(evidence, together(list(verdicts.values())) if verdicts else OPEN, why)


def _answer(evidence: Evidence, found: str, why: list[str]) -> Answer:
    """The answer, withheld where cells are missing: what is there is said all the same."""
    number = evidence.study.study.question
    assert number is not None
    done = sum(1 for _ in evidence.cells)
    if number == 7:
        return Answer(number, QUESTIONS[number], found, why)
    why = [*why, *at_the_edge(evidence)]
    if done < evidence.total:
        counted = f"{done} of {evidence.total} cells were run{f': {evidence.study.study.waits}' if evidence.study.study.waits else ''}"
        return Answer(number, QUESTIONS[number], OPEN, [counted, *why])
    return Answer(number, QUESTIONS[number], found, why)


def at_the_edge(evidence: Evidence) -> list[str]:
    """A sentence for each backbone and data: the arms whose best learning rate was the first or last that was tried."""
    rates, found = sorted(evidence.study.sweep.lr), dict[tuple[str, str, float], list[str]]()
    for cell, content in evidence.cells.items():
        if len(rates) > 1 and content["lr"] in (rates[0], rates[-1]):
            arms = found.setdefault((cell.data, cell.backbone, content["lr"]), [])
            arms += [] if cell.arm in arms else [cell.arm]
    return [
        f"{data}, {backbone}: the best learning rate is the edge of the sweep, {lr:g}, for {', '.join(arms)}"
        for (data, backbone, lr), arms in found.items()
    ]


def judged(evidence: Evidence) -> tuple[dict[Place, Verdict], list[str]]:
    """The verdict of every deciding place, and a sentence for each."""
    about = evidence.study.study
    if about.tested is not None:
        verdicts = needed(evidence.against(), about.margin, about.rivals) if evidence.against() else {}
        return verdicts, [f"{at}: {verdict.answer}; {verdict.why}{_p(verdict)}" for at, verdict in verdicts.items()]
    found: dict[tuple[str, Place], Effect] = {}
    for comparison in evidence.study.compare:
        if comparison.decides:
            found |= {(comparison.what, at): gain for at, gain in evidence.compared(comparison).items()}
    several = len({what for what, _ in found}) > 1
    decided = better(found, about.margin)
    why = [told(at, found[what, at], verdict, what if several else "") for (what, at), verdict in decided.items()]
    places: dict[Place, list[Verdict]] = {}
    for (_, at), verdict in decided.items():
        places.setdefault(at, []).append(verdict)
    return {at: Verdict(together(each), "", max(one.p for one in each)) for at, each in places.items()}, why


def paying(evidence: Evidence) -> tuple[str, list[str]]:
    """The rule of question 9, from the study's first two deciding comparisons, in the new domain and elsewhere: for every row, is A better
    in the new domain, or does it tie there and is better everywhere else?"""
    here, there = [evidence.compared(each) for each in evidence.study.compare if each.decides][:2]
    margin = evidence.study.study.margin
    decided = better({**here, **there}, margin)
    why = [told(at, {**here, **there}[at], verdict) for at, verdict in decided.items()]
    rows = []
    for row in dict.fromkeys(at.row for at in here):
        new = [at for at in here if at.row == row]
        tied = all(ties(here[at], margin) for at in new)
        rest = together([decided[at] for at in there if at.row == row])
        found = together([decided[at] for at in new])
        rows.append(Verdict(rest if tied and found != YES else found, "", 0.0))
    return (together(rows) if rows else OPEN), why


def told(at: Place, found: Effect, verdict: Verdict, what: str = "") -> str:
    """One comparison in one place as a sentence."""
    share = "" if found.relative is None else f", {100 * found.relative:+.1f} %".replace("-", "−")
    return f"{f'{what}; ' if what else ''}{at}: {verdict.answer}; {found.a:.3f} against {found.b:.3f}, {verdict.why}{share}{_p(verdict)}"


def _p(verdict: Verdict) -> str:
    return f"; corrected p {'< .001' if verdict.p < 0.001 else f'= {verdict.p:.3f}'}"


def cost(results: Path) -> tuple[str, list[str]]:
    """From the committed benchmark of forward passes: what a mixture costs over one LoRA and over the bare backbone, live and folded."""
    path = results / "bench" / "mixture.json"
    if not path.is_file():
        return OPEN, ["there is no results/bench/mixture.json"]
    ratios = json.loads(path.read_text(encoding="utf-8"))["ratios"]
    over = {kind: {name: each for name, each in ratios.items() if name.startswith(f"{kind},")} for kind in COSTS}
    lows = [each["low"] for each in over["mixture / peft_one"].values()]
    highs = [each["high"] for each in over["mixture / peft_one"].values()]
    if not lows:
        return OPEN, ["results/bench/mixture.json has no mixture / peft_one"]
    why = [f"{name}: {each['value']:.2f} [{each['low']:.2f}, {each['high']:.2f}]" for kind in COSTS for name, each in over[kind].items()]
    found = YES if min(lows) > COSTLY else NO if max(highs) <= COSTLY else OPEN
    rule = f"the rule asks whether mixture / peft_one lies above {COSTLY:g}, with all of the interval in every setting"
    return found, [rule, "process time of a forward pass on a CPU, in ratios with their range over rounds:", *why]


def headline(found: Answer) -> str:
    """One line for the top of the report."""
    return f"{found.number}. {found.question} {found.answer.capitalize()}."
