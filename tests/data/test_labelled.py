"""Labelled texts: read defensively, in disjoint splits, in batches that depend on seed, task and step alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from twofold.data.labelled import LabelledSet, is_labelled, open_labelled
from twofold.errors import DataError


def write(folder: Path, **splits: Sequence[tuple[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


ROWS = [(f"text number {i}", "ab"[i % 2]) for i in range(40)]


def test_splits_are_disjoint_and_dev_is_cut_from_train(tmp_path: Path) -> None:
    found = open_labelled(write(tmp_path / "letters", train=ROWS, test=[("Text number 3!", "b"), ("another", "a")]))
    assert found.name == "letters"
    assert found.splits == ("train", "dev", "test")
    assert found.labels == ("a", "b")
    assert len(found.split("train")) + len(found.split("dev")) == 39
    assert found.skipped == {"train text also in test": 1}
    ids = [one.id for split in found.splits for one in found.split(split)]
    assert len(set(ids)) == len(ids)
    assert all(identity.startswith("letters/") for identity in ids)


def test_one_file_is_all_train(tmp_path: Path) -> None:
    write(tmp_path, train=ROWS)
    found = open_labelled(tmp_path / "train.jsonl")
    assert found.splits == ("train", "dev")
    assert found.fingerprint == open_labelled(tmp_path / "train.jsonl").fingerprint


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"text": "x"', "not valid JSON"),
        ('{"text": "x"}', 'no "label"'),
        ('{"text": "", "label": "a"}', "empty text"),
        ('{"text": 3, "label": "a"}', "not a string"),
    ],
)
def test_a_bad_line_is_named_or_counted(tmp_path: Path, line: str, kind: str) -> None:
    path = write(tmp_path / "d", train=ROWS) / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"train.jsonl:41: .*{kind}"):
        open_labelled(tmp_path / "d")
    skipped = open_labelled(tmp_path / "d", "skip").skipped
    assert sum(skipped.values()) == 1


def test_nothing_usable_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable labelled text"):
        open_labelled(write(tmp_path / "none", train=[]))


def test_it_is_told_from_queries_and_documents(tmp_path: Path) -> None:
    assert is_labelled(write(tmp_path / "letters", train=ROWS))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "q", "positive": "p"}\n', encoding="utf-8")
    assert not is_labelled(pairs)
    assert not is_labelled(tmp_path)
    with pytest.raises(DataError, match="no dataset"):
        is_labelled(tmp_path / "nowhere")


def test_an_epoch_is_a_permutation(tmp_path: Path) -> None:
    source = LabelledSet(open_labelled(write(tmp_path / "letters", train=ROWS)))
    steps = len(source) // 5
    epoch = [one.id for step in range(steps) for one in source.batch("classify", step, 5, 0, seed=1)]
    assert len(set(epoch)) == len(epoch)
    assert epoch == [one.id for step in range(steps) for one in source.batch("classify", step, 5, 3, seed=1)], "negatives mean nothing here"
    assert epoch != [one.id for step in range(steps, 2 * steps) for one in source.batch("classify", step, 5, 0, seed=1)]
    assert epoch[:5] != [one.id for one in source.batch("classify", 0, 5, 0, seed=2)]


def test_ranks_share_the_global_batch(tmp_path: Path) -> None:
    source = LabelledSet(open_labelled(write(tmp_path / "letters", train=ROWS)))
    whole = source.batch("classify", 2, 6, 0, seed=0)
    assert whole == [one for rank in range(3) for one in source.batch("classify", 2, 2, 0, seed=0, rank=rank, world=3)]
    with pytest.raises(DataError, match="make the batch smaller"):
        source.batch("classify", 0, 100, 0, seed=0)
