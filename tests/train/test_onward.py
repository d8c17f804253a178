"""Settings of trials that go on from a model: which tasks an addition means, and what is made for them."""

from __future__ import annotations

from typing import Any

import pytest

from twofold.data.labelled import LabelledDataset
from twofold.errors import ConfigError
from twofold.records import Labelled
from twofold.train.onward import LEAST_STEPS, MOST_STEPS, READING, Onward, labels_in_short

RANKING: dict[str, Any] = {
    "name": "papers",
    "backbone": {"max_length": 64},
    "method": {"name": "moe_lora"},
    "data": {"train": ["papers"]},
    "tasks": {"retrieve": {"batch": 8, "negatives": 1}, "rerank": {"batch": 4, "negatives": 3}},
    "optim": {"steps": 30, "lr": 1e-3, "max_length": 32},
    "dev": {"queries": 10},
}


def labelled(**splits: list[str]) -> LabelledDataset:
    texts = {split: tuple(Labelled(f"{split}{i}", f"t{i}", one) for i, one in enumerate(labels)) for split, labels in splits.items()}
    return LabelledDataset("letters", texts)


def test_a_domain_is_two_tasks() -> None:
    assert Onward("m", ("domain:legal", "classify:mood")).tasks == ("retrieve:legal", "rerank:legal", "classify:mood")
    with pytest.raises(ConfigError, match="needs a name"):
        _ = Onward("m", ("domain:",)).tasks


def test_what_is_learnt_from_is_one_kind() -> None:
    assert Onward("m", ("classify",)).learns_labels()
    assert not Onward("m", ("domain:legal",)).learns_labels()
    assert not Onward("m").learns_labels()
    with pytest.raises(ConfigError, match="add one, then the other"):
        Onward("m", ("classify", "domain:legal")).learns_labels()


def test_settings_keep_the_models_backbone() -> None:
    found = Onward("m", ("domain:legal",)).of_ranking(RANKING)
    assert "backbone" not in found
    assert found["start"] == "m"
    assert found["name"] == "papers-added"
    assert found["tasks"] == {"retrieve:legal": RANKING["tasks"]["retrieve"], "rerank:legal": RANKING["tasks"]["rerank"]}
    assert found["optim"] == {"steps": 30, "lr": 1e-3}
    on = Onward("m").of_ranking(RANKING)
    assert (on["method"], on["tasks"], on["name"]) == ({"name": "continued"}, RANKING["tasks"], "papers-continued")


def test_settings_of_a_task_that_answers_see_as_many_questions_as_the_others_would() -> None:
    found = Onward("m", ("answer",)).of_ranking(RANKING)
    batch = RANKING["tasks"]["retrieve"]["batch"]
    assert found["tasks"] == {"answer": READING}
    assert found["method"] == {"name": "add_expert", "options": {"rank": 16}}
    assert found["optim"]["steps"] == max(-(-30 * batch // READING["batch"]), LEAST_STEPS)
    both = Onward("m", ("answer", "domain:legal")).of_ranking(RANKING)
    assert both["tasks"].keys() == {"answer", "retrieve:legal", "rerank:legal"}
    assert both["optim"] == {"steps": 30, "lr": 1e-3}


def test_steps_follow_the_number_of_texts() -> None:
    small, large = (labelled(train=["a", "b"] * n) for n in (5, 100_000))
    settings = [Onward("m", ("classify",)).of_labels("letters", "where", each) for each in (small, large)]
    assert settings[0]["tasks"] == {"classify": {"batch": 10}}
    assert settings[1]["tasks"] == {"classify": {"batch": 32}}
    assert settings[1]["optim"]["steps"] == MOST_STEPS


def test_labels_are_told_in_short() -> None:
    lines = labels_in_short(labelled(train=["a"] * 6 + ["b"], test=["a", "c"]))
    assert lines[0] == "letters: 7 train, 2 test texts, 2 labels"
    assert "label 'c' in dev or test and never in train" in lines[1]
    assert "label 'b' with fewer than five" in lines[2]
