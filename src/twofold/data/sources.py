"""Datasets: a corpus with queries and judgements, opened from a folder, a file, the hub, ir_datasets, or made on this machine."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from twofold.data.beir import Parts, read_folder
from twofold.data.corpus import Corpus
from twofold.data.documents import LISTS, documents_in, read_documents
from twofold.data.jsonl import OnError
from twofold.data.pairs import read_pairs
from twofold.data.pydocs import pydocs_folder
from twofold.data.remote import hub_folder, ir_datasets_folder
from twofold.data.splits import SPLITS, lot, separate
from twofold.errors import DataError
from twofold.nearest import nearest
from twofold.records import Qrels


@dataclass(frozen=True)
class Dataset:
    """A corpus with queries and judgements in disjoint splits.

    `judged` is split → query id → document id → grade; `texts` is query id → text, over all splits; `teacher` is query id → document id →
    a teacher model's score, where the source has such scores; `answers` is query id → texts that answer it, where the source has them;
    `skipped` counts by kind what was left out while reading.
    """

    name: str
    corpus: Corpus
    judged: Mapping[str, Qrels]
    texts: Mapping[str, str]
    sign: Callable[[], str]
    skipped: Mapping[str, int] = field(default_factory=dict)
    teacher: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are, of train, dev and test, in this order."""
        return tuple(split for split in SPLITS if split in self.judged)

    def qrels(self, split: str) -> Qrels:
        """The judgements of a split. Raises `DataError` when there is no such split."""
        if split not in self.judged:
            raise DataError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.judged[split]

    def queries(self, split: str) -> dict[str, str]:
        """Query id → text for the judged queries of a split. Raises `DataError` when there is no such split."""
        return {query: self.texts[query] for query in self.qrels(split)}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the bytes of the files that were read; made on first use and kept."""
        return self.sign()

    def subset(self, documents: int | None = None, queries: int | None = None) -> Dataset:
        """A smaller dataset: at most `queries` queries over all splits, and `documents` documents.

        Both are chosen by the sha256 of their ids, so the choice is stable and the splits keep their proportions. Documents judged relevant
        to a chosen query are always kept, even beyond `documents`; judgements of documents that are not kept are dropped.
        """
        chosen = sorted((query for split in self.splits for query in self.judged[split]), key=lot)[:queries]
        keep = set(chosen)
        judged = {split: {query: grades for query, grades in self.judged[split].items() if query in keep} for split in self.splits}
        relevant = {d for qrels in judged.values() for grades in qrels.values() for d, grade in grades.items() if grade > 0}
        others = [] if documents is None else sorted((d for d in self.corpus.ids if d not in relevant), key=lot)
        corpus = self.corpus if documents is None else self.corpus.select([*relevant, *others[: max(0, documents - len(relevant))]])
        left = {
            split: {query: {d: grade for d, grade in grades.items() if d in corpus} for query, grades in qrels.items()}
            for split, qrels in judged.items()
            if qrels
        }
        sign = self.sign
        signature = f"documents={documents} queries={queries}"
        return Dataset(
            self.name,
            corpus,
            left,
            {query: self.texts[query] for query in chosen},
            lambda: hashlib.sha256(f"{sign()} {signature}".encode()).hexdigest(),
            self.skipped,
            {query: scores for query, scores in self.teacher.items() if query in keep},
            {query: answers for query, answers in self.answers.items() if query in keep},
        )


def open_dataset(spec: str | Path, on_error: OnError = "raise", graded: bool = False) -> Dataset:
    """Opens a dataset by what `spec` names.

    - a BEIR folder, or a bare name that is a folder under `$TWOFOLD_DATA` or `../shared/data`;
    - a `.jsonl` file of pairs or triples, or a folder of `train.jsonl` [`dev.jsonl`, `test.jsonl`] (see `read_pairs`);
    - documents alone: a `.jsonl` file of them, a folder with `corpus.jsonl` or `documents.jsonl`, or a folder of `.txt` and `.md` files,
      whose titles or first sentences become queries (see `read_documents`);
    - `pydocs`: made from this Python's standard library;
    - `hub:OWNER/NAME`: the Hugging Face hub; `ir_datasets:NAME`: the ir_datasets catalogue; both are kept as BEIR folders in the cache.

    `graded` takes `qrels/train-graded.tsv` where there is one. Raises `DataError`, with `file:line:` for a bad line; with `on_error="skip"`
    bad lines are skipped and counted in `Dataset.skipped`.
    """
    path, name = locate(spec)
    counts: Counter[str] = Counter()
    parts = _read(path, on_error, counts, graded)
    judged = separate(parts.judged, parts.queries, counts)
    if not judged:
        raise DataError(f"{path}: no usable judgement; skipped: {dict(counts)}")
    return Dataset(
        name, parts.corpus, judged, parts.queries, lambda: files_sha256(parts.files, parts.rules), counts, parts.teacher, parts.answers
    )


def _read(path: Path, on_error: OnError, counts: Counter[str], graded: bool) -> Parts:
    """Reads whatever lies at `path`, by what is there."""
    if path.is_file():
        return read_documents(path, on_error, counts) if documents_in(path) else read_pairs(path, on_error, counts)
    if any((path / part).exists() for part in ("queries.jsonl", "qrels")):
        return read_folder(path, on_error, counts, graded)
    pairs = [f"{split}.jsonl" for split in SPLITS if (path / f"{split}.jsonl").is_file()]
    lists = [name for name in LISTS if (path / name).is_file()]
    if pairs and lists:
        raise DataError(f"{path}: both pairs ({', '.join(pairs)}) and documents ({', '.join(lists)}); keep one, or make it a BEIR folder")
    if pairs:
        return read_pairs(path, on_error, counts)
    if documents_in(path):
        return read_documents(path, on_error, counts)
    there = ", ".join(sorted(one.name for one in path.iterdir())[:8]) or "nothing"
    raise DataError(
        f"{path}: neither a BEIR folder (corpus.jsonl, queries.jsonl, qrels/), nor pairs (train.jsonl), nor documents (corpus.jsonl,"
        f" documents.jsonl, .txt, .md); there is {there}"
    )


def locate(spec: str | Path) -> tuple[Path, str]:
    """The file or folder that a dataset's name stands for, and its short name. Raises `DataError` where there is none."""
    text = str(spec)
    if text == "pydocs":
        return pydocs_folder(), "pydocs"
    scheme, _, rest = text.partition(":")
    if scheme == "hub" and rest:
        return hub_folder(rest), rest.rstrip("/").rpartition("/")[2]
    if scheme == "ir_datasets" and rest:
        return ir_datasets_folder(rest), rest.replace("/", "-")
    path = Path(spec)
    roots = [Path(root) for root in (os.environ.get("TWOFOLD_DATA"), "../shared/data") if root]
    places = [path, *(root / path for root in roots if path.name == text)]
    for place in places:
        if place.exists():
            return place, place.resolve().stem if place.is_file() else place.resolve().name
    looked = ", ".join(str(place) for place in places)
    expected = "a folder, a .jsonl file, a name under $TWOFOLD_DATA, pydocs, hub:OWNER/NAME or ir_datasets:NAME"
    raise DataError(f"no dataset {text!r}: looked for {looked}; a dataset is {expected}{_guess(path, places)}")


def _guess(path: Path, places: list[Path]) -> str:
    """The nearest name beside the places that were looked at, if one looks alike."""
    beside = {one for place in places if place.parent.is_dir() for one in place.parent.iterdir() if one.is_dir() or one.suffix == ".jsonl"}
    near = nearest(path.name, {one.name for one in beside} | ({"pydocs"} if len(path.parts) == 1 else set()))
    return "" if near is None else f"; did you mean {str(path.with_name(near))!r}?"


def files_sha256(files: tuple[Path, ...], rules: str = "") -> str:
    """sha256 over the names and bytes of files, and over the rules by which they are read."""
    total = hashlib.sha256(rules.encode())
    for path in files:
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
