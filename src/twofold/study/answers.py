"""The nine questions: each study's evidence under its rule, as yes, no, mixed or not decided, with effect size, interval and n."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twofold.study.blocks import Answer
from twofold.study.evidence import Evidence, Place
from twofold.study.file import CompareConfig
from twofold.study.probing import specialised
from twofold.study.statistics import Effect, ties
from twofold.study.verdict import MIXED, NO, OPEN, YES, Verdict, better, needed, together

QUESTIONS = {
    1: "Does retrieval interfere with reranking when they share weights?",
    2: "Is soft routing the cure?",
    3: "Does the input matter to the routing, beyond the task?",
    4: "Do the experts learn different things?",
    5: "Does what one task learns carry over to the other?",
    6: "Does every role gain by more rank?",
    7: "Does routing cost anything?",
    8: "Is the answer the same for larger and other backbones?",
    9: "Does a new expert pay when the domain shifts?",
}
COSTLY = 1.05
"""A mixture's forward pass over one LoRA's from which the answer to question 7 is yes: with all of the interval, in every setting."""
COSTS = ("mixture / one_lora", "mixture / bare", "folded / bare")
EVEN = 0.9
"""Effective experts over experts from which weights are called nearly equal."""


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
    if number in (2, 3):
        why += evenness(probed.get("routing", []))
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
    why = why if evidence.study.study.beside else [*scope(evidence), *why, *rates_taken(evidence)]
    if done < evidence.total:
        counted = f"{done} of {evidence.total} cells were run{f': {evidence.study.study.waits}' if evidence.study.study.waits else ''}"
        return Answer(number, QUESTIONS[number], OPEN, [counted, *why])
    return Answer(number, QUESTIONS[number], found, why)


def scope(evidence: Evidence) -> list[str]:
    """What the numbers below are of, in one sentence; nothing where nothing was run."""
    if not evidence.cells:
        return []
    seeds = {cell.seed for cell in evidence.cells}
    steps = {content["config"]["optim"]["steps"] for content in evidence.cells.values()}
    section = evidence.elsewhere() or evidence.study.study.name
    told = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}, {' or '.join(str(each) for each in sorted(steps))} steps"
    return [
        f"nDCG@10 (accuracy for labels) on test, differences with 95 % intervals; {told}; the arms are explained in the section {section}"
    ]


def rates_taken(evidence: Evidence) -> list[str]:
    """For each data and backbone, which arms took which learning rate: arms that took different ones differ by that too."""
    swept, found = sorted(evidence.study.sweep.lr), dict[tuple[str, str], dict[float, list[str]]]()
    for cell, content in evidence.cells.items():
        if len(swept) > 1 and content["lr"] is not None:
            arms = found.setdefault((cell.data, cell.backbone), {}).setdefault(content["lr"], [])
            arms += [] if cell.arm in arms else [cell.arm]
    lines = []
    for (data, backbone), rates in found.items():
        each = [f"{lr:g}{' (the edge)' if lr in (swept[0], swept[-1]) else ''}: {', '.join(arms)}" for lr, arms in sorted(rates.items())]
        apart = "; arms of different rates differ by that too" if len(rates) > 1 else ""
        lines.append(f"{data}, {backbone}: best learning rates of the sweep: {'; '.join(each)}{apart}")
    return lines


def evenness(found: list[dict[str, Any]]) -> list[str]:
    """Where the trained routers' weights are nearly equal: how much so, since that bounds what any of this says about routing."""
    shares = [each["report"]["facts"] for each in found if each["report"]["facts"].get("effective_experts")]
    if not shares:
        return []
    effective, experts = statistics.mean(one["effective_experts"] for one in shares), statistics.mean(one["experts"] for one in shares)
    if effective < EVEN * experts:
        return []
    counted = f"{effective:.2f} effective experts of {experts:g}"
    return [f"the trained routers' weights are nearly equal ({counted}): this is no test of routers that choose"]


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
    named = {each.what: each for each in evidence.study.compare}
    several = len({what for what, _ in found}) > 1
    decided = better(found, about.margin)
    why = [told(at, found[what, at], verdict, named[what], what if several else "") for (what, at), verdict in decided.items()]
    places: dict[Place, list[Verdict]] = {}
    for (_, at), verdict in decided.items():
        places.setdefault(at, []).append(verdict)
    return {at: Verdict(together(each), "", max(one.p for one in each)) for at, each in places.items()}, why


def paying(evidence: Evidence) -> tuple[str, list[str]]:
    """The rule of question 9, from the study's first two deciding comparisons, in the new domain and elsewhere: for every row, is A better
    in the new domain, or does it tie there and is better everywhere else?"""
    new_ones, old_ones = [each for each in evidence.study.compare if each.decides][:2]
    here, there = evidence.compared(new_ones), evidence.compared(old_ones)
    margin = evidence.study.study.margin
    decided = better({**here, **there}, margin)
    why = [told(at, {**here, **there}[at], verdict, new_ones) for at, verdict in decided.items()]
    rows = []
    for row in dict.fromkeys(at.row for at in here):
        new = [at for at in here if at.row == row]
        tied = all(ties(here[at], margin) for at in new)
        rest = together([decided[at] for at in there if at.row == row])
        found = together([decided[at] for at in new])
        rows.append(Verdict(rest if tied and found != YES else found, "", 0.0))
    return (together(rows) if rows else OPEN), why


def told(at: Place, found: Effect, verdict: Verdict, between: CompareConfig, what: str = "") -> str:
    """One comparison in one place as a sentence."""
    share = "" if found.relative is None else f" ({100 * found.relative:+.1f} %)".replace("-", "−")
    sides = f"{between.arm('a', at.row)} {found.a:.3f}, {between.arm('b', at.row)} {found.b:.3f}{share}"
    return f"{f'{what}; ' if what else ''}{at}: {verdict.answer}; {sides}; {verdict.why}{_p(verdict)}"


def _p(verdict: Verdict) -> str:
    return f"; corrected p {'< .001' if verdict.p < 0.001 else f'= {verdict.p:.3f}'}"


def cost(results: Path) -> tuple[str, list[str]]:
    """From the committed benchmark of forward passes: what a mixture costs over one LoRA and over the bare backbone, live and folded."""
    path = results / "bench" / "mixture.json"
    if not path.is_file():
        return OPEN, ["there is no results/bench/mixture.json"]
    ratios = json.loads(path.read_text(encoding="utf-8"))["ratios"]
    over = {kind: {name: each for name, each in ratios.items() if name.startswith(f"{kind},")} for kind in COSTS}
    intervals = [_interval(each) for each in over[COSTS[0]].values()]
    if not intervals:
        return OPEN, [f"results/bench/mixture.json has no {COSTS[0]}"]
    why = [
        f"{name}: {each['value']:.2f} [{_interval(each)[0]:.2f}, {_interval(each)[1]:.2f}]"
        for kind in COSTS
        for name, each in over[kind].items()
    ]
    found = YES if min(low for low, _ in intervals) > COSTLY else NO if max(high for _, high in intervals) <= COSTLY else OPEN
    rule = f"the rule asks whether {COSTS[0]} lies above {COSTLY:g}, with all of the interval in every setting"
    about = (
        "one_lora: our own layer with one LoRA of as many ranks and no router; folded: a task's constant weights added to the backbone's"
    )
    return found, [rule, about, "process time of a forward pass on a CPU: medians of ratios, with 95 % intervals over rounds:", *why]


def _interval(ratio: Mapping[str, Any]) -> tuple[float, float]:
    """Its 95 % interval; of a result that has none, the least and the most over rounds."""
    low, high = ratio.get("interval", (ratio["low"], ratio["high"]))
    return low, high


def headline(found: Answer) -> str:
    """One line for the top of the report."""
    return f"{found.number}. {found.question} {found.answer.capitalize()}."
