"""Two results side by side, or a refusal that names what differs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.toy import ToySystem, toy_dataset
from twofold.errors import DataError, NotComparable
from twofold.evaluate.compare import compare
from twofold.evaluate.evaluation import Evaluation, Settings, evaluate

TRAIN = {"steps": {"retrieve": 10, "rerank": 10}, "data": "abc", "batch": {"retrieve": 32, "rerank": 8}, "lr": 1e-3, "seed": 1}
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def base() -> Evaluation:
    settings = Settings(depth=3, bm25_rerank_depth=2, retrieval_depth=5, resamples=99)
    return evaluate(ToySystem(1.0), toy_dataset(), name="base", method="ours", train=TRAIN, settings=settings)


@pytest.fixture
def write(base: Evaluation, tmp_path: Path) -> Write:
    def write(name: str, **changes: Any) -> Path:
        """The base result with fields replaced; `settings__depth=9` replaces one key of a field."""
        fields: dict[str, Any] = {}
        for key, value in changes.items():
            field, _, inner = key.partition("__")
            fields[field] = {**fields.get(field, getattr(base, field)), inner: value} if inner else value
        path = tmp_path / f"{name}.json"
        dataclasses.replace(base, **fields).save(path)
        return path

    return write


def test_gain_is_b_over_a(base: Evaluation, write: Write) -> None:
    worse = {**base.per_query, "dense": {query: value / 2 for query, value in base.per_query["dense"].items()}}
    comparison = compare(write("a", per_query=worse, method="theirs", train__lr=5e-4), write("b"))
    dense = next(row for row in comparison.rows if row.row == "dense")
    assert dense.gain.mean > 0
    assert dense.gain.mean == pytest.approx(dense.b - dense.a)
    assert dense.gain.wins == 6
    assert ("method", "theirs", "ours") in comparison.differences
    assert ("train.lr", 5e-4, 1e-3) in comparison.differences
    assert json.loads(comparison.to_json())["rows"][0]["row"] == "bm25"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data__fingerprint": "other"}, "data.fingerprint"),
        ({"data__split": "dev"}, "data.split"),
        ({"settings__depth": 100}, "settings.depth"),
        ({"settings__bm25_sha256": "other"}, "settings.bm25_sha256"),
        ({"train__steps": {"retrieve": 10, "rerank": 20}}, "train.steps"),
        ({"train__batch": {"retrieve": 64, "rerank": 8}}, "train.batch"),
        ({"train__data": "xyz"}, "train.data"),
        ({"per_query": {"dense": {"q0": 1.0}}}, "queries"),
    ],
)
def test_refused(write: Write, change: dict[str, Any], field: str) -> None:
    with pytest.raises(NotComparable, match=field):
        compare(write("a"), write("b", **change))


def test_every_differing_field_is_named(write: Write) -> None:
    with pytest.raises(NotComparable, match=r"data\.split: \"test\" against \"dev\".*settings\.depth: 3 against 9.*train\.data"):
        compare(write("a"), write("b", data__split="dev", settings__depth=9, train__data="x"))


@pytest.mark.parametrize("untrained", [None, {"steps": {"retrieve": 0, "rerank": 0}}])
def test_an_untrained_system_may_stand_beside_a_trained_one(write: Write, untrained: dict[str, Any] | None) -> None:
    comparison = compare(write("a", train=untrained, settings__rerank_weight=0), write("b"))
    assert any("was trained" in note and "b.json" in note for note in comparison.notes)
    assert any("weight 0" in note and "a.json" in note for note in comparison.notes)


def test_not_a_result(write: Write, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"x\.json: not the result"):
        compare(write("a"), tmp_path / "x.json")
