"""Answers on a split: with the right passage given, and from question to answer by one model (retrieve, rerank, read)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twofold import provenance
from twofold.cache import write_text
from twofold.data.sources import Dataset
from twofold.data.splits import lot
from twofold.evaluate.answers import Question, Reading, f1, given_passages, measured, questions, read_passages
from twofold.evaluate.classification import older_outputs
from twofold.evaluate.reranking import rerank_run
from twofold.evaluate.retrieval import Progress, dense_run
from twofold.evaluate.runs import top
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.ranking import interpolate, ranked
from twofold.tasks.answer import AnswerTask

OLDER = 400
"""Questions whose older vectors and scores are compared."""


@dataclass(frozen=True)
class Depths:
    """How far each stage looks."""

    rerank: int = 20
    read: int = 5


@dataclass(frozen=True)
class Answering:
    """One evaluation of a task's answers, as plain data."""

    name: str
    data: Mapping[str, Any]
    """Name, split, sha256, number of questions and documents."""
    task: str
    rows: Mapping[str, Mapping[str, float]]
    """"passage given", "end to end" (an answer must be given), "end to end, or nothing" (as the threshold says) and "nothing there"
    (the same questions without the passages that may answer them: nothing is right) → exact match, F1 and, but for the first, the
    share of questions that were answered. All but the first are of the sample, where one was asked for."""
    found: Mapping[str, float]
    """How often the right passage is the first, and among those read."""
    settings: Mapping[str, Any]
    older: Mapping[str, int] | None
    """Where the task was added to a model: how many older vectors and scores were compared, and how many changed in any bit."""
    per_question: Mapping[str, Mapping[str, float]]
    """Question → F1 with the passage given, and end to end."""
    train: Mapping[str, Any] | None
    system: Mapping[str, Any]
    environment: Mapping[str, Any]
    seconds: Mapping[str, float]

    def to_json(self) -> str:
        """All of it, readable: one line a question."""
        plain = {"kind": "answering", **asdict(self)}
        plain["per_question"] = "…"
        rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row)}" for key, row in self.per_question.items())
        return json.dumps(plain, indent=1, ensure_ascii=False).replace('"…"', f"{{\n{rows}\n }}") + "\n"

    def save(self, path: Path) -> None:
        """Writes it as JSON, completely or not at all."""
        write_text(path, self.to_json())


def answer_dataset(
    model: UnifiedModel,
    task: str,
    dataset: Dataset,
    split: str = "test",
    *,
    name: str = "",
    depths: Depths | None = None,
    sample: int | None = None,
    before: UnifiedModel | None = None,
    train: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Answering:
    """Exact match and F1 of a task's answers on a split; end to end by the model's own retrieval and reranking.

    `sample`: end to end only so many questions, chosen by the hash of their ids; `before` is the model as it was before the task was
    added, whose outputs are compared. Raises ValueError for a task that the model does not do, DataError for a split without answers.
    """
    reader = dict(model.tasks.items()).get(task)
    if not isinstance(reader, AnswerTask):
        raise ValueError(f"this model was not made for {task!r}: it does {sorted(model.tasks)}")
    depths, begun = depths or Depths(), time.perf_counter()
    asked = sorted(questions(dataset, split), key=lambda one: lot(one.id))
    given = given_passages(model, task, asked)
    between = time.perf_counter()
    few = asked[:sample]
    readings, found = _end_to_end(System.of(model), model, task, dataset, split, few, depths, progress)
    seconds = {"passage given": round(between - begun, 1), "end to end": round(time.perf_counter() - between, 1)}
    about: dict[str, Any] = {"name": dataset.name, "split": split, "sha256": dataset.fingerprint}
    about |= {"questions": len(asked), "documents": len(dataset.corpus)}
    tuned = {"threshold": reader.threshold, "rerank_share": reader.rerank_share, "longest": reader.longest}
    return Answering(
        name=name or f"{dataset.name}-{task}",
        data=about,
        task=task,
        rows=_rows(given, readings, asked, reader),
        found=found,
        settings={**asdict(depths), **tuned, "rerank_weight": model.rerank_weight, "sample": sample},
        older=None if before is None else older_outputs(before, model, [one.text for one in asked[:OLDER]]),
        per_question=_per_question(given, readings, asked, reader),
        train=train,
        system=System.of(model).describe(),
        environment=provenance.environment(),
        seconds=seconds,
    )


def _end_to_end(
    system: System,
    model: UnifiedModel,
    task: str,
    dataset: Dataset,
    split: str,
    asked: Sequence[Question],
    depths: Depths,
    progress: Progress | None,
) -> tuple[list[Reading], dict[str, float]]:
    """What is read after retrieval over the whole corpus and reranking, and how often the right passage is among it."""
    dense = dense_run(system.encode_queries, system.encode_documents, dataset, split, progress=progress)
    first = top({one.id: dense[one.id] for one in asked}, depths.rerank)
    pairs = rerank_run(system.score, first, dataset, split, progress=progress)
    run = interpolate(first, pairs, system.rerank_weight)
    order = {one.id: ranked(run[one.id])[: depths.read] for one in asked}
    found = {
        "first": float(np.mean([one.passage.id in order[one.id][:1] for one in asked])),
        "read": float(np.mean([one.passage.id in order[one.id] for one in asked])),
    }
    return read_passages(model, task, dataset, asked, run, pairs, depths.read), found


def _rows(given: Sequence[str], readings: Sequence[Reading], asked: Sequence[Question], reader: AnswerTask) -> dict[str, dict[str, float]]:
    """As `Answering.rows` says; `readings` are of the first questions."""
    answers, n = [one.answers for one in asked], len(readings)
    rows = {"passage given": measured(given, answers)}
    if n < len(asked):
        rows["passage given, of the sample"] = measured(given[:n], answers[:n])
    free = [reading.best(reader.rerank_share)[0] for reading in readings]
    rows["end to end"] = {**measured(free, answers[:n]), "answered": 1.0}
    rows["end to end, or nothing"] = _or_nothing(readings, reader)
    rows["nothing there"] = _or_nothing([reading.without_right() for reading in readings], reader)
    return rows


def _per_question(
    given: Sequence[str], readings: Sequence[Reading], asked: Sequence[Question], reader: AnswerTask
) -> dict[str, dict[str, float]]:
    found = {one.id: {"given": round(f1(text, one.answers), 4)} for one, text in zip(asked, given, strict=True)}
    for one, reading in zip(asked, readings, strict=False):
        found[one.id]["end_to_end"] = round(f1(reading.best(reader.rerank_share)[0], one.answers), 4)
    return found


def _or_nothing(readings: Sequence[Reading], reader: AnswerTask) -> dict[str, float]:
    """What the threshold lets through, measured, and how much that is."""
    found = [reading.best(reader.rerank_share) for reading in readings]
    given = [text if score >= reader.threshold else "" for text, score in found]
    return {**measured(given, [one.answers for one in readings]), "answered": float(np.mean([bool(text) for text in given]))}
