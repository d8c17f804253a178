"""What the facts of a dataset mean for a training: findings, each with a level and, where something can be done, what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twofold.data.check import SHORT_DOCUMENT, SHORT_QUERY, Facts

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MUCH, SOME = 0.25, 0.05
"""Shares of texts above which a cut is a warning, and a note."""
STEPS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
"""Lengths that are asked for."""
FEW_TRAINING, FEW_MEASURED = 100, 50


@dataclass(frozen=True)
class Limits:
    """How many tokens are kept, and what a model puts around a text."""

    query: int
    """Of the query of a pair."""
    document: int
    """Of one text, with template and prompt."""
    pair: int
    """Of a pair, with its template."""
    around_document: int = 2
    """Tokens of template and prompt."""
    around_pair: int = 3
    reach: int = 1 << 20
    """The most that the model's positions allow."""
    training_document: int | None = None
    """While training, if less."""
    training_pair: int | None = None


@dataclass(frozen=True)
class Demand:
    """What one task asks of the data in every step."""

    batch: int
    negatives: int


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing. An error stops a training before it starts."""

    level: Level
    about: str
    """A short name, the same for the same kind of finding."""
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Lengths:
    """Lengths of one kind of text in tokens, template included, and what the limit does to them."""

    sampled: int
    median: int
    p95: int
    longest: int
    limit: int
    cut: float
    """Share of the sample that is longer than the limit."""
    cut_in_training: float


def lengths(facts: Facts, limits: Limits) -> dict[str, Lengths]:
    """The rows "queries", "documents" and "pairs"; none where nothing was tokenised."""
    if facts.sample is None:
        return {}
    sample, about = facts.sample, limits
    document_D = sample.document_D + about.around_document
    pair_P = np.minimum(sample.pair_P2[:, 0], limits.query) + sample.pair_P2[:, 1] + about.around_pair
    rows = {
        "queries": (sample.query_Q, limits.query, None),
        "documents": (document_D, limits.document, limits.training_document),
        "pairs": (pair_P, limits.pair, limits.training_pair),
    }
    return {name: _lengths(values, limit, training) for name, (values, limit, training) in rows.items() if len(values)}


def _lengths(values: NDArray[np.int64], limit: int, training: int | None) -> Lengths:
    median, p95 = (int(np.quantile(values, q, method="higher")) for q in (0.5, 0.95))
    shares = [float((values > most).mean()) for most in (limit, min(limit, training or limit))]
    return Lengths(len(values), median, p95, int(values.max()), limit, *shares)


def step_up(length: int, most: int) -> int:
    """The first of `STEPS` that holds `length`, but at most `most`."""
    return min(next((step for step in STEPS if step >= length), STEPS[-1]), most)


def judge(facts: Facts, limits: Limits, demands: Mapping[str, Demand]) -> list[Finding]:
    """All findings, the worst first. `demands` is task → what it asks; empty where nothing is trained."""
    found = [*_enough(facts, demands), *_splits(facts), *_leaks(facts), *_cuts(facts, limits), *_texts(facts), *_read(facts)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _many(count: int, what: str) -> str:
    """ "1 query", "1,000 queries": `what` is in the singular."""
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{count:,} {what if count == 1 else plural}"


def _enough(facts: Facts, demands: Mapping[str, Demand]) -> Iterator[Finding]:
    """Whether there is enough to fill the batches."""
    train = facts.splits.get("train")
    usable = 0 if train is None else train.queries - train.without_positive
    if not demands:
        return
    if train is None or not usable:
        yield Finding(
            "error", "nothing to learn", "no training query has a relevant document", "add pairs to train.jsonl or qrels/train.tsv"
        )
        return
    for task, demand in demands.items():
        if usable < demand.batch:
            text = f"{_many(usable, 'training query')} for a batch of {demand.batch} ({task})"
            yield Finding("error", "batch", text, f"lower tasks.{task}.batch to {max(1, usable // 2)}, or add data")
        if facts.documents < train.most_positives + demand.negatives:
            text = f"{_many(facts.documents, 'document')} for {_many(demand.negatives, 'negative')} of every query ({task})"
            yield Finding("error", "negatives", text, f"lower tasks.{task}.negatives, or add documents")
    if usable < FEW_TRAINING:
        text = f"only {_many(usable, 'training query')}: little can be learnt beyond them"
        yield Finding(
            "warning", "little data", text, "a few hundred pairs are a start, a few thousand are good; titles of documents are free"
        )
    largest = max(demand.batch for demand in demands.values())
    if largest <= usable < 4 * largest:
        text = f"a batch of {largest} is a large part of {_many(usable, 'training query')}: every epoch has few batches"
        yield Finding("note", "few batches", text, f"a smaller batch, such as {max(1, usable // 8)}, mixes better")


def _splits(facts: Facts) -> Iterator[Finding]:
    if "dev" not in facts.splits:
        text = "no dev split: nothing to stop early by, and the pair score weighs one half"
        yield Finding("warning", "no dev", text, "add dev.jsonl, or a second training query to cut dev from")
    if "test" not in facts.splits:
        yield Finding("note", "no test", "no test split", "keep a few hundred pairs apart as test.jsonl, or evaluate with --split dev")
    for split in ("dev", "test"):
        count = facts.splits[split].queries if split in facts.splits else FEW_MEASURED
        if count < FEW_MEASURED:
            text = f"{_many(count, 'query')} in {split}: scores will be rough (one query is {1 / count:.0%} of them)"
            yield Finding("note", f"few in {split}", text)
    for split, counted in facts.splits.items():
        if counted.without_positive:
            text = f"left out of {split}: {_many(counted.without_positive, 'query')} of {counted.queries:,} without a relevant document"
            yield Finding("warning" if counted.without_positive > MUCH * counted.queries else "note", "no positive", text)
        if counted.repeated:
            yield Finding("note", "repeated queries", f"{_many(counted.repeated, 'query')} of {split} with the words of another")


def _leaks(facts: Facts) -> Iterator[Finding]:
    for (a, b), count in facts.shared.items():
        text = f"{_many(count, 'query')} in {a} and in {b}"
        yield Finding("warning", "leak", text, f"take them out of {a}: what is chosen on dev looks better on test than it is")
    for kind, count in facts.skipped.items():
        if kind.startswith("train query also in"):
            yield Finding("note", "leak removed", f"left out of train: {_many(count, 'query')} also in {kind.split()[-1]}")
    if facts.test_in_train:
        text = f"{facts.test_in_train:,} of the {facts.test_documents:,} relevant documents of test are also relevant to a training query"
        advice = "usual where all search one collection; a leak if test is to show how new documents are found"
        yield Finding("note", "test documents in train", text, advice)


def _cuts(facts: Facts, limits: Limits) -> Iterator[Finding]:
    settings = {"queries": "query_length", "documents": "max_length", "pairs": "pair_length"}
    for kind, row in lengths(facts, limits).items():
        if row.cut > SOME:
            wanted = step_up(row.p95, limits.reach)
            name = f"backbone.{settings[kind]}"
            advice = (
                f"raise {name} to {wanted}"
                if wanted > row.limit
                else f"{row.limit} is all the model reads: cut long documents into passages"
            )
            level: Level = "warning" if row.cut > MUCH else "note"
            yield Finding(level, f"cut {kind}", f"{row.cut:.0%} of the {kind} are cut at {row.limit} tokens", advice)
    training = {kind: row.cut_in_training for kind, row in lengths(facts, limits).items() if row.cut_in_training > max(SOME, row.cut)}
    if training:
        shares = " and ".join(f"{share:.0%} of the {kind}" for kind, share in training.items())
        names = " and ".join(f"optim.{settings[kind]}" for kind in training)
        yield Finding("note", "cut in training", f"while training, {shares} are cut ({names})", "shorter is faster; none trains on all")


def _texts(facts: Facts) -> Iterator[Finding]:
    def level(share: float) -> Level:
        return "warning" if share > SOME else "note"

    if facts.repeats:
        of = "" if facts.scanned == facts.documents else f" (of {facts.scanned:,} that were read)"
        example = f", for example {facts.repeat_example[0]!r:.40} and {facts.repeat_example[1]!r:.40}" if facts.repeat_example else ""
        text = f"{_many(facts.repeats, 'document')} the same as another{of}{example}"
        advice = "remove them: the copy of a relevant document is ranked as if it were wrong"
        yield Finding(level(facts.repeats / facts.scanned), "repeated documents", text, advice)
    if facts.short_documents:
        names = ", ".join(f"{name!r:.40}" for name in facts.short_documents[:3])
        text = f"{_many(len(facts.short_documents), 'document')} of fewer than {SHORT_DOCUMENT} characters: {names}"
        yield Finding(level(len(facts.short_documents) / facts.scanned), "short documents", text)
    short = sum(split.short for split in facts.splits.values())
    if short:
        text = f"{_many(short, 'query')} of fewer than {SHORT_QUERY} characters"
        yield Finding(level(short / sum(split.queries for split in facts.splits.values())), "short queries", text)
    if facts.asks_itself:
        text = f"of {_many(facts.pairs_sampled, 'sampled query')} {facts.asks_itself:,} with the query itself as relevant document"
        yield Finding("warning", "query is document", text, "remove them: nothing is learnt from them, and scores look too good")


def _read(facts: Facts) -> Iterator[Finding]:
    for kind, count in facts.skipped.items():
        if not kind.startswith("train query also in"):
            yield Finding("note", "skipped", f"left out while reading: {count:,} × {kind}")
    if facts.with_teacher:
        text = f"{_many(facts.with_teacher, 'training query')} with a teacher's scores, which are used only where you say so"
        yield Finding("note", "teacher", text, "for example --set tasks.rerank.options.teacher_weight=0.5")


def as_dict(facts: Facts, limits: Limits, findings: list[Finding]) -> dict[str, Any]:
    """All of it as JSON types. `ok` is false where there is an error."""
    rows = lengths(facts, limits)
    return {
        "kind": "check",
        "name": facts.name,
        "ok": not any(finding.level == "error" for finding in findings),
        "documents": facts.documents,
        "splits": {split: vars(counted) for split, counted in facts.splits.items()},
        "lengths": {kind: vars(row) for kind, row in rows.items()},
        "skipped": dict(facts.skipped),
        "findings": [vars(finding) for finding in findings],
    }
