"""Labelled texts: JSON lines of `text` and `label` in train.jsonl [dev.jsonl, test.jsonl], and the batches drawn from them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

from twofold.data.jsonl import OnError, clean, read_jsonl, string_at, tolerate
from twofold.data.mixing import generator_at
from twofold.data.pairs import text_id
from twofold.data.sources import files_sha256, locate
from twofold.data.splits import SPLITS, bucket, normalised
from twofold.errors import DataError
from twofold.records import Labelled


@dataclass(frozen=True)
class LabelledDataset:
    """Texts with labels in disjoint splits. `skipped` counts by kind what was left out while reading."""

    name: str
    texts: Mapping[str, tuple[Labelled, ...]]
    """Split → its texts."""
    files: tuple[Path, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits there are, of train, dev and test, in this order."""
        return tuple(split for split in SPLITS if self.texts.get(split))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the train split, in alphabetical order."""
        return tuple(sorted({one.label for one in self.split("train")}))

    def split(self, name: str) -> tuple[Labelled, ...]:
        """The texts of a split. Raises `DataError` when there is no such split."""
        if not self.texts.get(name):
            raise DataError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.texts[name]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the bytes of the files that were read."""
        return files_sha256(self.files)


def is_labelled(spec: str | Path) -> bool:
    """Whether a dataset is one of labelled texts, told by the first lines of its first file. Raises `DataError` where there is none."""
    path, _ = locate(spec)
    files = _files(path)
    if not files or not next(iter(files.values())).is_file():
        return False
    records = islice(read_jsonl(next(iter(files.values())), "skip"), 5)
    return any({"text", "label"} <= record.keys() for _, _, record in records)


def open_labelled(spec: str | Path, on_error: OnError = "raise") -> LabelledDataset:
    """Opens a folder of train.jsonl [dev.jsonl, test.jsonl], or one file, which is all train; `spec` as for `open_dataset`.

    Texts of train that are also in test or dev are dropped and counted. Where there is no dev split, the tenth of train whose id
    falls in `bucket` 0 becomes it. Raises `DataError` with `file:line:` for a bad line, or skips and counts it.
    """
    path, name = locate(spec)
    counts: Counter[str] = Counter()
    tolerant = tolerate(on_error, counts)
    files = _files(path)
    texts: dict[str, tuple[Labelled, ...]] = {}
    for split, file in files.items():
        found = []
        for number, _, record in read_jsonl(file, on_error, counts):
            where = f"{file}:{number}"
            with tolerant:
                text, label = (clean(string_at(record, key, where), where) for key in ("text", "label"))
                found.append(Labelled(f"{name}/{text_id('t', text)}", text, label))
        texts[split] = tuple(found)
    return LabelledDataset(name, _separate(texts, counts, str(path)), tuple(files.values()), counts)


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"train": path}
    found = {split: path / f"{split}.jsonl" for split in SPLITS}
    return {split: file for split, file in found.items() if file.is_file()}


def _separate(texts: dict[str, tuple[Labelled, ...]], counts: Counter[str], where: str) -> dict[str, tuple[Labelled, ...]]:
    train = texts.pop("train", ())
    train = _without(train, texts.get("test", ()), counts, "train text also in test")
    if len(train) > 1 and not texts.get("dev"):
        texts["dev"] = tuple(one for one in train if bucket(one.id) == 0)
        train = tuple(one for one in train if bucket(one.id) != 0)
    train = _without(train, texts.get("dev", ()), counts, "train text also in dev")
    texts["train"] = train
    if not any(texts.values()):
        raise DataError(f'{where}: no usable labelled text; a line is {{"text": …, "label": …}}; skipped: {dict(counts)}')
    return texts


def _without(train: tuple[Labelled, ...], other: tuple[Labelled, ...], counts: Counter[str], kind: str) -> tuple[Labelled, ...]:
    seen = {normalised(one.text) for one in other}
    kept = tuple(one for one in train if normalised(one.text) not in seen)
    if len(kept) < len(train):
        counts[kind] += len(train) - len(kept)
    return kept


class LabelledSet:
    """The train split as batches, an `ExampleSource`: an epoch is a permutation of the texts; the ragged end is dropped."""

    def __init__(self, dataset: LabelledDataset, split: str = "train") -> None:
        self.name, self._texts = dataset.name, dataset.split(split)
        self.sha256 = hashlib.sha256(f"{dataset.name} {split} {dataset.fingerprint} {_ids(self._texts)}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._texts)

    def batch(self, task: str, step: int, size: int, negatives: int, seed: int, rank: int = 0, world: int = 1) -> list[Labelled]:  # noqa: ARG002
        """One rank's slice of the global batch of `size * world` texts; there are no negatives. Raises `DataError` when it has fewer."""
        whole = size * world
        if not 0 < whole <= len(self) or not 0 <= rank < world:
            raise DataError(f"{self.name}: a batch of {size} × {world} (rank {rank}) from {len(self)} texts; make the batch smaller")
        epoch, position = divmod(step, len(self) // whole)
        order = generator_at(seed, task, epoch).permutation(len(self))
        start = position * whole + rank * size
        return [self._texts[int(i)] for i in order[start : start + size]]


def _ids(texts: Iterable[Labelled]) -> str:
    return hashlib.sha256("\n".join(f"{one.id} {one.label}" for one in texts).encode()).hexdigest()
