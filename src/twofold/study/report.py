"""`twofold study report`: several studies as one page and one Markdown file, every number from their committed cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twofold.cache import write_text
from twofold.study.answers import QUESTIONS, answer
from twofold.study.blocks import Answer, Figure, Report, Section
from twofold.study.evidence import Evidence
from twofold.study.file import Study
from twofold.study.markdown import markdown
from twofold.study.page import page
from twofold.study.probing import reports
from twofold.study.sections import blocks
from twofold.study.verdict import OPEN

TITLE = "Does retrieval interfere with reranking, and is routing the cure?"
LEAD = (
    "Each answer is what the rule of studies/README.md says of the cells that were run. It was written before the runs; what was changed "
    "since, and when, stands there. "
    "“Not decided” is an answer: what stands beside it is why."
)
HOW_TO_READ = (
    "How to read it. dense: the whole corpus ranked by the query's vector; rerank: BM25's candidates, the same for every arm, ranked "
    "by the pair score; pipeline: an arm's own candidates, reranked, which decides nothing. An arm is one way of training, explained in "
    "its section. A difference is a − b in nDCG@10, of means over seeds and queries; low and high are the ends of its 95 % interval over "
    "seeds and queries. p is of a paired randomisation over queries, for these trained models: it does not know what other seeds would "
    "give, so look at “seeds up” too, with how many seeds a was above b. Questions about one passage count as independent, which they "
    "are not. A tie is a 90 % interval inside ±.01. “detectable” is the difference that four of five such studies would see."
)


def report(studies: Sequence[Study], results: Path) -> Report:
    """The report of some studies, from `results` (results/studies)."""
    sections, seen = [], []
    smaller: dict[int, list[str]] = {}
    for study in studies:
        evidence, about = Evidence(study, results / study.study.name), study.study
        probed = reports(evidence.folder, study)
        found = answer(evidence, probed, results.parent)
        if found and about.beside:
            told = [
                f"{about.name}, {about.beside}, which decides nothing: {found.answer}",
                *(f"{about.name}: {line}" for line in found.why),
            ]
            smaller[found.number] = [*smaller.get(found.number, []), *told]
        sections.append(Section(about.name, about.title, None if about.beside else found, list(blocks(evidence, probed))))
        seen += list(evidence.cells.values())
    have = {section.answer.number for section in sections if section.answer}
    missing = [Answer(number, text, OPEN, ["there is no study of it here"]) for number, text in QUESTIONS.items() if number not in have]
    sections += [Section(f"question-{each.number}", each.question, each, []) for each in missing]
    return Report(TITLE, [LEAD, HOW_TO_READ], [_with(section, smaller) for section in sections], facts_of(seen))


def _with(section: Section, smaller: Mapping[int, list[str]]) -> Section:
    """The section, with what smaller studies of its question say below its answer."""
    found = section.answer
    return section if found is None else replace(section, answer=replace(found, why=[*found.why, *smaller.get(found.number, [])]))


def facts_of(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Commits, hardware and versions of the cells, and how many there are."""
    unique = {cell["key"]: cell for cell in cells}.values()
    versions: dict[str, set[str]] = {}
    for cell in unique:
        for name, version in cell["environment"]["versions"].items():
            versions.setdefault(name, set()).add(version)
    return {
        "cells": len(unique),
        "commits": sorted({commit(cell["environment"]) for cell in unique}),
        "hardware": sorted({hardware(cell["environment"]) for cell in unique}),
        "versions": {name: " and ".join(sorted(found)) for name, found in sorted(versions.items())},
        "from": min((cell["environment"]["date"] for cell in unique), default=None),
        "to": max((cell["environment"]["date"] for cell in unique), default=None),
    }


def commit(environment: dict[str, Any]) -> str:
    """The commit, and whether its code was changed."""
    return str(environment["commit"])[:12] + " (changed)" * bool(environment["dirty"])


def hardware(environment: dict[str, Any]) -> str:
    """The accelerator, or the processor with the cores that were used."""
    if environment["accelerators"]:
        return ", ".join(sorted(set(environment["accelerators"])))
    return f"{environment['cpu']['model']}, {environment['cpu']['cores']} cores, {environment['threads']} threads"


def write(found: Report, folder: Path) -> list[Path]:
    """Writes index.html, report.md, its pictures and the answers as JSON; returns what was written."""
    answers = [{"number": each.number, "question": each.question, "answer": each.answer, "why": each.why} for each in found.answers]
    files = {
        "index.html": page(found),
        "report.md": markdown(found),
        "answers.json": json.dumps({"kind": "study report", "answers": answers, "facts": found.facts}, indent=1, ensure_ascii=False) + "\n",
    }
    for section in found.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                files[f"figures/{section.study}-{block.name}.svg"] = block.svg + "\n"
    for old in (folder / "figures").glob("*.svg"):
        old.unlink()
    for name, text in files.items():
        write_text(folder / name, text)
    return [folder / name for name in files]
