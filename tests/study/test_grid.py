"""The grid's order, its labels, and the settings of a trial."""

from __future__ import annotations

import pytest

from tests.study.conftest import MakeStudy
from twofold.errors import ConfigError
from twofold.study.grid import Cell, cells, learns, matches, measured, settings, sources, sweep_of


def test_seeds_are_the_outer_loop(study: MakeStudy) -> None:
    found = [(cell.seed, cell.arm) for cell in cells(study())]
    assert found == [(seed, arm) for seed in (0, 1) for arm in ("one", "alone", "moe", "mean")]


def test_data_name_their_arms_and_arms_their_data_and_seeds(study: MakeStudy) -> None:
    few = study(data={"more": {"train": ["x"], "arms": ["one", "moe"]}}, arms={"moe": {"data": ["made"]}, "one": {"seeds": [1]}})
    assert [cell.label for cell in cells(few) if cell.data == "more"] == ["more/bert/one/seed1"]


@pytest.mark.parametrize("pattern", ["*/moe/*", "made/*/moe/seed0", "moe", "moe/seed0"])
def test_only(study: MakeStudy, pattern: str) -> None:
    assert {cell.arm for cell in cells(study(), (pattern,))} == {"moe"}
    assert not matches("made/bert/moe_lora/seed0", "moe") and not matches("made/bert/moe/seed10", "seed1")


def test_only_what_learns_is_swept(study: MakeStudy) -> None:
    tiny = study()
    assert [run.lr for run in sweep_of(tiny, Cell("made", "bert", "moe", 1))] == [1e-3, 5e-3]
    assert {run.seed for run in sweep_of(tiny, Cell("made", "bert", "moe", 1))} == {0}
    assert not learns(tiny, Cell("made", "bert", "mean", 0)) and not sweep_of(tiny, Cell("made", "bert", "mean", 0))
    assert not sweep_of(study(arms={"moe": {"sweep": False}}), Cell("made", "bert", "moe", 0))


def test_settings_are_laid_over_one_another(study: MakeStudy) -> None:
    tiny = study(
        backbones={"bert": {"optim": {"steps": 7, "clip": 2.0}}},
        data={"made": {"settings": {"optim": {"steps": 8}}}},
        arms={"one": {"settings": {"optim": {"steps": 9}}}},
        sweep={"keys": ["optim.lr", "optim.lr_heads"]},
    )
    found = settings(tiny, Cell("made", "bert", "one", 3, lr=0.25))
    assert (found.optim.steps, found.optim.clip, found.seed, found.optim.lr, found.optim.lr_heads) == (9, 2.0, 3, 0.25, 0.25)
    assert settings(tiny, Cell("made", "bert", "moe", 0)).optim.steps == 8 and tiny.base["optim"] == {"steps": 4}
    assert (found.method.name, found.name) == ("shared_lora", "tiny-made-bert-one-seed3")
    assert sources(found) == tiny.data["made"].train


def test_an_arm_may_have_fewer_tasks_or_variants_of_them(study: MakeStudy) -> None:
    tiny = study(arms={"new": {"what": "", "method": {"name": "shared_lora"}, "tasks": ["retrieve:new", "rerank:new"]}})
    found = settings(tiny, Cell("made", "bert", "new", 0))
    assert found.tasks["retrieve:new"].batch == 4 and found.tasks["rerank:new"].negatives == 2
    assert measured(found) == ("retrieve", "rerank") and measured(settings(tiny, Cell("made", "bert", "alone", 0))) == ("retrieve",)


def test_a_wrong_setting_names_the_cell(study: MakeStudy) -> None:
    with pytest.raises(ConfigError, match=r"study tiny, made/bert/one/seed0: unknown key 'optim.stepz'"):
        settings(study(arms={"one": {"settings": {"optim": {"stepz": 1}}}}), Cell("made", "bert", "one", 0))
