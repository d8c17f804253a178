"""Keys hold what decides a cell's numbers and nothing else; equal cells of other studies count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.study.conftest import MakeStore
from twofold.errors import DataError
from twofold.study.grid import Cell
from twofold.study.store import Store, dump, load

CELL = Cell("made", "bert", "one", 0, lr=1e-3)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"study": {"title": "Another?", "rivals": [], "tested": "none"}}, True),
        ({"base": {"threads": 2, "checkpoint": {"every": 1}}}, True),
        ({"arms": {"moe": {"what": "other words"}}}, True),
        ({"base": {"optim": {"clip": 1.0}}}, True),  # which it is by default
        ({"base": {"optim": {"steps": 5}}}, False),
        ({"arms": {"one": {"method": {"name": "shared_lora", "options": {"rank": 5}}}}}, False),
        ({"measure": {"depth": 4}}, False),
        ({"measure": {"queries": 3}}, False),
        ({"data": {"made": {"train_queries": 9}}}, False),
    ],
)
def test_what_a_key_holds(store: MakeStore, changes: dict[str, Any], same: bool) -> None:
    assert (store().key(CELL) == store(**changes).key(CELL)) is same


def test_seed_rate_and_kind_are_in_it(store: MakeStore) -> None:
    mine = store()
    others = [CELL, replace(CELL, seed=1), replace(CELL, lr=2e-3), replace(CELL, sweeping=True)]
    assert len({mine.key(cell) for cell in others}) == 4
    assert mine.trial_key(CELL) == mine.trial_key(replace(CELL, sweeping=True))


def test_a_twins_key_is_its_models_too(store: MakeStore) -> None:
    twin = Cell("made", "bert", "mean", 0)
    one, two = (store(sweep={"lr": [lr]}) for lr in (1e-3, 2e-3))
    for each in (one, two):
        with pytest.raises(KeyError, match="moe"):
            each.key(twin)
        each.put(replace(CELL, arm="moe", lr=each.study.sweep.lr[0], sweeping=True), {"criterion": 0.1})
    assert one.key(twin) != two.key(twin)


def test_a_cell_that_another_study_has_done_is_pointed_to(store: MakeStore) -> None:
    first, second = store("tiny"), store("other")
    first.put(CELL, {"lr": 1e-3, "score": 5})
    assert second.get(CELL) == first.get(CELL) and not second.path(CELL).is_file()
    second.adopt(CELL)
    assert load(second.path(CELL))["score"] == 5
    again = Store(second.study, second.folder, second.samples)
    assert again.get(CELL) is not None and store("third").get(CELL) is not None


def test_what_is_no_cell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="a.json: no result of a study"):
        load(tmp_path / "a.json")
    with pytest.raises(DataError, match="b.json: cannot be read"):
        load(tmp_path / "b.json")


def test_the_smallest_of_equal_rates_is_chosen(store: MakeStore) -> None:
    mine = store()
    for lr, criterion in ((1e-3, 0.5), (5e-3, 0.5)):
        assert mine.chosen(CELL) is None and mine.resolved(replace(CELL, lr=None)) is None
        mine.put(replace(CELL, lr=lr, sweeping=True), {"criterion": criterion})
    assert mine.chosen(CELL) == 1e-3 and mine.resolved(replace(CELL, lr=None, seed=1)) == replace(CELL, seed=1)


def test_no_rate_is_chosen_where_dev_says_nothing(store: MakeStore) -> None:
    mine = store()
    for lr, criterion in ((1e-3, None), (5e-3, 0.5)):
        mine.put(replace(CELL, lr=lr, sweeping=True), {"criterion": criterion})
    assert mine.chosen(CELL) is None and mine.resolved(replace(CELL, lr=None)) is None
    one = store("one", sweep={"lr": [2e-3]})
    one.put(replace(CELL, lr=2e-3, sweeping=True), {"criterion": None})
    assert one.chosen(CELL) == 2e-3  # there is nothing to choose


def test_a_file_is_one_line_for_each_innermost_group() -> None:
    assert (
        dump({"a": {"b": {"q": 1, "r": 2}, "c": [1]}, "d": None})
        == '{\n "a": {\n  "b": {"q": 1, "r": 2},\n  "c": [1]\n },\n "d": null\n}\n'
    )
