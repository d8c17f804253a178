"""What is said of a training is what was measured or set."""

from __future__ import annotations

import json
from typing import Any

import torch

from tests.train.conftest import MakeConfig
from twofold.config import TrialConfig
from twofold.model.build import build_model
from twofold.train.facts import Trained, count_parameters, facts_of
from twofold.train.loop import LoopState
from twofold.train.material import Material, prepare_material
from twofold.train.stages import trained
from twofold.train.start import mining_model, spec_of
from twofold.train.trial import method_of

PER_RANK = dict.fromkeys(("layers",), 2 * (4 * 64 + 2 * 80))["layers"]
HEAD = 32 + 1
"""A weight for each feature of a query's token, and the scale."""
"""Parameters of one rank in the tiny BERT of two layers: in each four matrices of 32 × 32 and two between 32 and 48."""


def parts_of(config: TrialConfig, steps: int | None = 6) -> list[Trained]:
    members = method_of(config).members
    state = None if steps is None else LoopState(step=steps, tokens=100, truncated=3)
    models = [build_model(spec_of(config, member)) for member in members]
    return [Trained(member, model, state, trained(model, member)) for member, model in zip(members, models, strict=True)]


def material(config: TrialConfig) -> Material:
    return prepare_material(config, lambda: mining_model(config, torch.device("cpu")), lambda _: None, {}, learning=True)


def count(config: TrialConfig) -> dict[str, Any]:
    return count_parameters(parts_of(config))


def test_a_training_is_told(make_config: MakeConfig) -> None:
    config = make_config(seed=5)
    found = facts_of(config, parts_of(config), material(config), seconds=1.26)
    train = found["train"]
    assert found["method"] == "moe_lora"
    assert train["steps"] == {"retrieve": 6, "rerank": 6}
    assert (train["seed"], train["tokens"], train["truncated"], train["seconds"]) == (5, 100, 3, 1.3)
    assert train["batch"] == {"retrieve": 4, "rerank": 2}
    assert train["negatives"] == {"retrieve": 1, "rerank": 2}
    assert train["lr"] == {"experts": 5e-3, "router": 5e-3, "heads": 5e-3, "backbone": 2e-5}
    assert train["data"].keys() == {"retrieve", "rerank"}
    assert json.loads(json.dumps(found))["config"]["name"] == "tiny"


def test_where_nothing_was_trained_nothing_is_told(make_config: MakeConfig) -> None:
    config = make_config(method={"name": "zero_shot"})
    assert facts_of(config, parts_of(config, None), material(config), 1.0)["train"] is None


def test_parameters_total_trainable_and_active(make_config: MakeConfig) -> None:
    shared = count(make_config(method={"name": "shared_lora", "options": {"rank": 4}}))
    assert shared["active"] == {"retrieve": 4 * PER_RANK, "rerank": 4 * PER_RANK + HEAD}
    assert shared["trainable"] == 4 * PER_RANK + HEAD
    hard = count(make_config(method={"name": "hard_lora", "options": {"rank": 2}}))
    assert hard["active"] == {"retrieve": 2 * PER_RANK, "rerank": 2 * PER_RANK + HEAD}
    assert hard["trainable"] == 4 * PER_RANK + HEAD
    assert hard["total"] == shared["total"]
    backbone = hard["total"] - hard["trainable"]
    full = count(make_config(method={"name": "specialists"}))
    assert full["active"] == {"retrieve": backbone, "rerank": backbone + HEAD}
    assert full["trainable"] == full["total"] == 2 * backbone + HEAD


def test_all_stages_count_and_frozen_routers_do_not(make_config: MakeConfig) -> None:
    mole = count(make_config(method={"name": "tests.train.mole"}))
    assert mole["trainable"] > 2 * 2 * PER_RANK
    frozen = count(make_config(method={"name": "moe_lora", "options": {"router": "frozen_random", "rank": 2}}))
    assert frozen["trainable"] == 3 * 2 * PER_RANK + HEAD
