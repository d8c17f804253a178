"""Datasets from elsewhere, copied once into the cache as folders, so that everything after reads one layout and checks it once."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from twofold.cache import cache_root, made_once
from twofold.data.beir import write_folder
from twofold.errors import DataError
from twofold.records import Document, Query

_SPLIT = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "val": "dev", "test": "test"}
_QUERY = ("query", "anchor", "question")
_POSITIVE = ("positive", "pos", "answer", "passage")


def hub_folder(name: str) -> Path:
    """A dataset of the Hugging Face hub, `OWNER/NAME` or `OWNER/NAME:CONFIG`, as a folder in the cache.

    Understood are the layout of BEIR and MTEB (configs `corpus` and `queries`, judgements in `qrels`, in `default`, or in the repository
    `NAME-qrels`) and pairs or triples (a column query, anchor or question; positive, pos, answer or passage; any that begin with "neg").
    Raises `DataError` when `datasets` is not installed, the hub cannot be reached, or the columns are others.
    """
    library = _library("datasets", "datasets")
    repository, _, config = name.partition(":")
    try:
        configs = library.get_dataset_config_names(repository)
        if not config and {"corpus", "queries"} <= set(configs):
            return _hub_beir(library, repository, configs)
        return _hub_pairs(repository, library.load_dataset(repository, config or None))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"hub:{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def _hub_beir(library: Any, repository: str, configs: list[str]) -> Path:
    corpus, queries = (next(iter(library.load_dataset(repository, part).values())) for part in ("corpus", "queries"))
    held = next((config for config in ("qrels", "default") if config in configs), None)
    qrels = library.load_dataset(repository, held) if held else library.load_dataset(f"{repository}-qrels")
    judged = {_SPLIT[split]: table for split, table in qrels.items() if split in _SPLIT}
    if not judged:
        raise DataError(f"hub:{repository}: judgements for {', '.join(qrels)}, expected train, dev, validation or test")

    def write(folder: Path) -> None:
        write_folder(
            folder,
            (Document(_id(row), row.get("title") or "", row["text"]) for row in corpus),
            (Query(_id(row), row["text"]) for row in queries),
            {split: _judgements(table) for split, table in judged.items()},
        )

    return made_once(_place("hub", repository, [corpus, queries, *judged.values()]), write)


def _id(row: Mapping[str, Any]) -> str:
    return str(row["_id"] if "_id" in row else row["id"])


def _judgements(table: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, int]]:
    for row in table:
        yield str(row["query-id"]), str(row["corpus-id"]), max(0, int(row.get("score", 1)))


def _hub_pairs(repository: str, tables: Mapping[str, Any]) -> Path:
    splits = {_SPLIT[split]: table for split, table in tables.items() if split in _SPLIT}
    columns = list(next(iter(tables.values())).column_names)
    query = next((column for column in _QUERY if column in columns), None)
    positive = next((column for column in _POSITIVE if column in columns), None)
    if not splits or query is None or positive is None:
        expected = "corpus and queries, or columns query, positive[, negative]"
        raise DataError(f"hub:{repository}: splits {', '.join(tables)} with columns {', '.join(columns)}; expected {expected}")
    negatives = [column for column in columns if column.startswith("neg")]

    def write(folder: Path) -> None:
        for split, table in splits.items():
            with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for row in table:
                    texts = [text for column in negatives for text in _as_list(row[column])]
                    file.write(json.dumps({"query": row[query], "positive": row[positive], "negatives": texts}) + "\n")

    return made_once(_place("hub", repository, list(splits.values())), write)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _place(source: str, name: str, tables: list[Any]) -> Path:
    """A folder whose name changes with the files behind the tables (the hub's commit is part of their path)."""
    files = hashlib.sha256(repr([table.cache_files for table in tables]).encode()).hexdigest()
    return cache_root() / source / f"{_slug(name)}-{files[:12]}"


def ir_datasets_folder(name: str) -> Path:
    """A dataset of the ir_datasets catalogue (https://ir-datasets.com) as a BEIR folder in the cache.

    A name with judgements of its own (`beir/scifact/test`) gives one split, called test unless the name ends in another; one without
    (`beir/scifact`) gives the splits below it. Raises `DataError` when the library is not installed or the name is unknown.
    """
    library = _library("ir_datasets", "ir_datasets")
    try:
        top = library.load(name)
    except KeyError:
        raise DataError(f"ir_datasets has no dataset {name!r}; https://ir-datasets.com lists them") from None
    splits = {_SPLIT.get(name.rpartition("/")[2], "test"): top} if top.has_qrels() else _below(library, name)
    if not splits:
        raise DataError(f"ir_datasets:{name} has no judgements, nor has any of {', '.join(f'{name}/{part}' for part in _SPLIT)}")
    source = next(part for part in splits.values() if part.has_docs() and part.has_queries())

    def write(folder: Path) -> None:
        queries = {q.query_id: Query(q.query_id, _text(q)) for part in splits.values() for q in part.queries_iter()}
        documents = (Document(d.doc_id, getattr(d, "title", "") or "", _text(d)) for d in source.docs_iter())
        write_folder(folder, documents, queries.values(), {split: _best_grades(part) for split, part in splits.items()})

    return made_once(cache_root() / "ir_datasets" / f"{_slug(name)}-{library.__version__}", write)


def _below(library: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, split in _SPLIT.items():
        try:
            dataset = library.load(f"{name}/{part}")
        except KeyError:
            continue
        if dataset.has_qrels():
            found.setdefault(split, dataset)
    return found


def _text(record: Any) -> str:
    """The body where the record has a title of its own, else all its text in ir_datasets' own order."""
    return str(record.text if hasattr(record, "text") else record.default_text())


def _best_grades(dataset: Any) -> list[tuple[str, str, int]]:
    """The best grade of each pair (TREC judges some once per subtopic); grades below 0 mean junk and become 0."""
    best: dict[tuple[str, str], int] = {}
    for row in dataset.qrels_iter():
        pair = (row.query_id, row.doc_id)
        best[pair] = max(best.get(pair, 0), row.relevance)
    return [(query, document, grade) for (query, document), grade in best.items()]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"this needs the package {package}: pip install {package}") from error
