"""Accuracy and macro-F1 against hand counts; MTEB's probe on vectors that separate and on vectors that do not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from twofold.data.labelled import LabelledDataset
from twofold.evaluate.classification import SHOTS, classify_dataset, few_shots, linear_probe, measures
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.records import Labelled
from twofold.tasks.classify import Guess

TRAIN = tuple(Labelled(f"d/{i}", f"{'north' if i % 2 else 'south'} {i}", "n" if i % 2 else "s") for i in range(60))
TEST = tuple(Labelled(f"d/t{i}", f"{'north' if i % 3 else 'south'} t{i}", "n" if i % 3 else "s") for i in range(9))


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array([[1.0, 0.1] if "north" in text else [0.1, 1.0] for text in texts], dtype=np.float32)


def blind(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.ones((len(texts), 2), dtype=np.float32)


class Toy:
    """Says "n" always; embeds by the word."""

    tasks = ("retrieve", "classify")
    spec = ModelSpec("toy", {"retrieve": {}, "classify": {}})

    def predict(self, task: str, texts: Sequence[str]) -> list[Guess]:
        assert task == "classify"
        return [Guess("n", 0.9) for _ in texts]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return embed(texts)


def test_measures_equal_a_count_by_hand() -> None:
    found = measures(["a", "a", "b", "c"], ["a", "b", "b", "a"])
    assert found["accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 * 0.5 * 0.5 / 1 + 2 * 0.5 * 1 / 1.5 + 0) / 3)


def test_a_few_of_each_label_are_drawn() -> None:
    rare = (*TRAIN, Labelled("d/r", "rare", "r"))
    chosen = few_shots(rare, np.random.default_rng(0))
    assert Counter(rare[i].label for i in chosen) == {"n": SHOTS, "s": SHOTS, "r": 1}
    assert len(set(chosen)) == len(chosen)
    assert few_shots(rare, np.random.default_rng(0)) == chosen


def test_the_probe_tells_what_the_vectors_tell() -> None:
    assert linear_probe(embed, TRAIN, TEST) == {"accuracy": 1.0, "macro_f1": 1.0}
    assert linear_probe(blind, TRAIN, TEST)["accuracy"] < 0.7


def test_a_result_has_all_rows_and_every_text(tmp_path: Path) -> None:
    dataset = LabelledDataset("d", {"train": TRAIN, "test": TEST})
    found = classify_dataset(cast(UnifiedModel, Toy()), "classify", dataset, frozen=blind)
    assert found.rows.keys() == {"classifier", "probe", "frozen probe"}
    assert found.rows["classifier"]["accuracy"] == pytest.approx(6 / 9)
    assert sum(found.right.values()) == 6
    assert len(found.right) == 9
    found.save(tmp_path / "sub" / "r.json")
    read: Any = json.loads((tmp_path / "sub" / "r.json").read_text(encoding="utf-8"))
    assert read["kind"] == "classification"
    assert read["data"] == {"name": "d", "split": "test", "sha256": dataset.fingerprint, "texts": 9, "labels": 2}
