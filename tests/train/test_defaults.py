from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_findings import SPLIT, facts, sample
from tests.tiny_trial import tiny_config, write_backbone, write_beir
from twofold import config as configs
from twofold.errors import ConfigError, DataError
from twofold.train.check import Ruler
from twofold.train.check import judged as judge_all
from twofold.train.defaults import EPOCHS, LEAST_STEPS, Machine, check_of, config_for, default_values, start_of, trial_name

RULER = Ruler(None, around_document=2, around_pair=3, reach=512)
CPU = Machine()


def values(machine: Machine = CPU, ruler: Ruler = RULER, **changes: Any) -> dict[str, Any]:
    return default_values("mine", "data/mine", facts(**changes), ruler, machine)


def train(**changes: Any) -> dict[str, Any]:
    return {"train": replace(SPLIT, **changes)}


def test_sizes_follow_the_data() -> None:
    small, large = values(splits=train(queries=24, positives=24)), values(splits=train(queries=100_000, positives=100_000))
    assert small["tasks"]["retrieve"]["batch"] == 4 and large["tasks"]["retrieve"]["batch"] == 32
    assert small["optim"]["steps"] == LEAST_STEPS and large["optim"]["steps"] == CPU.most_steps
    middle = values(splits=train(queries=960, positives=960))
    assert middle["optim"]["steps"] == EPOCHS * 960 // 32
    assert values(sample=sample(document=40))["backbone"]["max_length"] == 48
    assert values(sample=sample(document=4000))["backbone"]["max_length"] == 256


def test_long_texts_are_learnt_from_by_their_beginnings_on_a_cpu_only() -> None:
    assert values(sample=sample(document=4000))["optim"]["max_length"] == 128
    assert "max_length" not in values(Machine(gpu=True), sample=sample(document=4000))["optim"]
    assert "max_length" not in values(sample=sample(document=40))["optim"]
    assert values(Machine(gpu=True, bf16=True), sample=sample(document=4000))["backbone"] == {
        "max_length": 512, "pair_length": 512, "query_length": 16, "precision": "bf16",
    }  # fmt: skip


def test_negatives_that_are_given_are_not_mined_for() -> None:
    given_three = train(zeros=3000, queries_with_zeros=1000)
    assert values(splits=given_three)["data"]["negatives"] == {"bm25_depth": 0, "model_depth": 0}
    assert values(documents=1_000_000)["data"]["negatives"] == {"bm25_depth": 30, "model_depth": 0}
    assert values()["data"]["negatives"] == {"bm25_depth": 30, "model_depth": 30}
    assert values(documents=4)["tasks"]["rerank"]["negatives"] == 1


@settings(max_examples=200)
@given(
    queries=st.integers(2, 200_000), documents=st.integers(1, 1_000_000), most=st.integers(1, 5), query=st.integers(0, 3000),
    document=st.integers(0, 20_000), reach=st.sampled_from([(64, 3), (128, 3), (512, 3), (8192, 120)]), gpu=st.booleans(),
)  # fmt: skip
def test_what_is_made_can_be_trained(
    queries: int, documents: int, most: int, query: int, document: int, reach: tuple[int, int], gpu: bool
) -> None:
    """Valid settings, room for a document in every pair, and no error of the check, whatever the data."""
    most = min(most, documents)
    counted = facts(splits=train(queries=queries, most_positives=most), documents=documents, sample=sample(query, document))
    ruler = replace(RULER, reach=reach[0], around_pair=reach[1])
    made = configs.make(default_values("mine", "mine", counted, ruler, Machine(gpu)))
    limits = ruler.limits(made)
    assert limits.pair - limits.query - ruler.around_pair >= 1 and limits.document <= reach[0]
    assert made.optim.pair_length is None or made.optim.pair_length - limits.query - ruler.around_pair >= 1
    assert not judge_all(made, counted, ruler).errors


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/my pairs/", "my-pairs"),
        ("handbook.jsonl", "handbook"),
        ("hub:me/some.data", "some.data"),
        ("ir_datasets:beir/x", "x"),
        ("---", "trial"),
        ("pydocs", "pydocs"),
    ],
)
def test_the_trial_is_named_after_the_data(source: str, name: str) -> None:
    assert trial_name(source) == name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("defaults")
    write_backbone(folder / "backbone")
    write_beir(folder / "tiny")
    return folder


@pytest.fixture
def sets(place: Path) -> list[str]:
    return [f"backbone.name={place / 'backbone'}", "device=cpu"]


def test_settings_are_made_for_data_and_overrides_win(place: Path, sets: list[str]) -> None:
    made = config_for(str(place / "tiny"), [*sets, "optim.steps=7", "name=other"])
    assert (made.config.name, made.config.optim.steps, made.config.data.train) == ("other", 7, [str(place / "tiny")])
    assert tomllib.loads(made.text)["optim"]["steps"] == LEAST_STEPS
    assert config_for(str(place / "tiny"), sets).config == config_for(str(place / "tiny"), sets).config
    with pytest.raises(ConfigError, match="did you mean 'optim.steps'"):
        config_for(str(place / "tiny"), ["optim.stepz=7"])
    with pytest.raises(DataError, match="no dataset"):
        config_for(str(place / "nowhere"))


def test_a_start_from_data_says_its_settings_and_the_check(place: Path, sets: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    start = start_of(str(place / "tiny"), sets, tmp_path, False, said.append)
    assert "[optim]" in said[0] and said[1].startswith("tiny: 40 documents")
    assert set(start.datasets) == {str(place / "tiny")} and start.config.name == "tiny"


def test_a_resumed_start_keeps_its_settings(place: Path, sets: list[str], tmp_path: Path) -> None:
    first = start_of(str(place / "tiny"), [*sets, "optim.steps=9"], tmp_path, False, lambda _: None)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.toml").write_text(first.config.to_toml())
    again = start_of(str(place / "tiny"), [], tmp_path, True, lambda _: None)
    assert again.config == first.config and set(again.datasets) == {str(place / "tiny")}


def test_a_start_from_a_file_is_checked_too_unless_it_is_finished(place: Path, tmp_path: Path) -> None:
    config = tiny_config(place / "backbone", place / "tiny", tasks={"retrieve": {"batch": 100}, "rerank": {}})
    (tmp_path / "mine.toml").write_text(config.to_toml())
    with pytest.raises(DataError, match="32 training queries for a batch of 100"):
        start_of(str(tmp_path / "mine.toml"), [], tmp_path, False, lambda _: None)
    (tmp_path / "tiny" / "model").mkdir(parents=True)
    assert start_of(str(tmp_path / "mine.toml"), [], tmp_path, False, pytest.fail).datasets == {}


def test_a_check_against_a_file_and_against_what_would_be_made(place: Path, sets: list[str], tmp_path: Path) -> None:
    config = tiny_config(place / "backbone", place / "tiny", tasks={"retrieve": {"batch": 100}, "rerank": {}})
    (tmp_path / "mine.toml").write_text(config.to_toml())
    assert check_of(str(place / "tiny"), tmp_path / "mine.toml", []).errors
    found = check_of(str(place / "tiny"), None, sets)
    assert not found.errors and json.loads(json.dumps(found.as_dict()))["ok"]
