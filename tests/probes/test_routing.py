"""What the router decides by, on routers of which that is known."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.probes.conftest import NAMES, SOFT, MakeSystem
from tests.tiny_trial import tiny_config, write_beir
from twofold.core.inject import Expert as Spec
from twofold.core.inject import LayerPlan
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import ConfigError
from twofold.model.folder import load_system
from twofold.model.system import System
from twofold.probes.routing import information, permuted, run
from twofold.train.trial import run_trial

TWO = tuple(Spec(name, 2) for name in ("one", "two"))
HARD = LayerPlan(TWO, sees={"retrieve": ("one",), "rerank": ("two",)}, router="by_task")
QUICK = {"split": "train", "queries": 8, "permutations": 9}


def test_a_router_that_copies_the_task_id_is_found_out(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(HARD), dataset, **QUICK)  # type: ignore[arg-type]
    assert len(report["tables"]["layers"]) == 12
    for row in report["tables"]["layers"]:
        assert row["task"] == pytest.approx(log(2), abs=1e-6)
        assert row["input"] == row["side"] == row["rest"] == row["entropy"] == 0
        assert row["task_share"] == row["task_variance"] == row["effective_experts"] == 1
        assert row["task_p"] == 0.1  # the smallest that nine permutations can give
        assert 0 <= float(str(row["task_null"])) < 0.1
    assert report["facts"]["told_the_task"] is True


def test_a_router_that_gives_all_the_same_says_nothing(make: MakeSystem, dataset: Dataset) -> None:
    facts = run(make(replace(SOFT, router="uniform")), dataset, **QUICK)["facts"]  # type: ignore[arg-type]
    assert facts["task"] == facts["input"] == facts["side"] == 0
    assert facts["task_share"] is None and facts["task_variance"] is None
    assert facts["entropy"] == pytest.approx(log(3), abs=1e-6)
    assert facts["effective_experts"] == pytest.approx(3, abs=1e-5)


def test_a_router_that_never_hears_of_the_task_decides_by_the_input(make: MakeSystem, dataset: Dataset) -> None:
    options = {"task_input": False, "std": 1.0}
    facts = run(make(replace(SOFT, router_options=options)), dataset, **QUICK)["facts"]  # type: ignore[arg-type]
    assert facts["told_the_task"] is False
    assert float(str(facts["input"])) > 0.01 and facts["input_null"] is None
    assert float(str(facts["task_share"])) < 1


def test_tokens_have_a_null_of_their_own(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(replace(SOFT, router_options={"level": "token", "std": 1.0})), dataset, **QUICK)  # type: ignore[arg-type]
    assert {row["level"] for row in report["tables"]["layers"]} == {"token"}
    assert float(str(report["facts"]["input_null"])) > 0


def test_two_datasets_are_told_apart(make: MakeSystem, dataset: Dataset, tmp_path: Path) -> None:
    other = replace(open_dataset(write_beir(tmp_path / "tiny")), name="other")
    report = run(make(), dataset, beside=(other,), **QUICK)  # type: ignore[arg-type]
    assert report["facts"]["dataset"] == 0  # the very same texts under another name
    assert {row["dataset"] for row in report["tables"]["weights"]} == {"tiny", "other"}


def test_weights_are_shares_of_all_experts(make: MakeSystem, dataset: Dataset) -> None:
    rows = run(make(HARD), dataset, **QUICK)["tables"]["weights"]  # type: ignore[arg-type]
    found = {(row["task"], row["expert"]): row["weight"] for row in rows}
    assert found == {("retrieve", "one"): 1, ("retrieve", "two"): 0, ("rerank", "one"): 0, ("rerank", "two"): 1}


def test_information_is_what_the_formula_says() -> None:
    weight_NE = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    share_N, none = np.full(4, 0.25), np.zeros(4, dtype=np.int64)
    by_two, by_one = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert information(weight_NE, share_N, by_two, none) == pytest.approx(log(2))
    assert information(weight_NE, share_N, by_one, none) == pytest.approx(0)
    assert information(weight_NE, share_N, by_one, by_two) == pytest.approx(0)
    uneven = np.array([0.5, 0.25, 0.125, 0.125])
    assert information(weight_NE, uneven, by_two, none) == pytest.approx(-0.75 * log(0.75) - 0.25 * log(0.25))


def test_labels_are_dealt_out_inside_their_groups() -> None:
    labels, groups = np.array([0, 1, 2, 3, 4, 5]), np.array([1, 0, 1, 0, 1, 0])
    dealt = permuted(np.random.default_rng(3), labels, groups)
    assert set(dealt[groups == 1]) == {0, 2, 4} and set(dealt[groups == 0]) == {1, 3, 5}
    assert list(dealt) != list(labels)


def test_checkpoints_are_looked_at_and_left_behind(backbone_dir: Path, tmp_path: Path) -> None:
    beir = write_beir(tmp_path / "tiny")
    run_trial(tiny_config(backbone_dir, beir, method={"name": "moe_lora", "options": {"rank": 2}}, optim={"lr": 0.1}), tmp_path / "trial")
    system, data = load_system(tmp_path / "trial" / "model"), open_dataset(beir)
    before = system.encode_queries(["bc de"])
    report = run(system, data, trial=str(tmp_path / "trial"), snapshot_queries=4, **QUICK)  # type: ignore[arg-type]
    steps = report["tables"]["steps"]
    assert {row["step"] for row in steps} == {4, 6}
    last = [row["weight"] for row in steps if row["step"] == 6]
    assert last != [row["weight"] for row in steps if row["step"] == 4]
    assert np.array_equal(system.encode_queries(["bc de"]), before)
    assert any("no checkpoints" in note for note in run(system, data, trial=str(tmp_path), **QUICK)["notes"])  # type: ignore[arg-type]


def test_what_has_no_routing_is_refused(make: MakeSystem, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="no experts"):
        run(make(LayerPlan()), dataset)
    one, two = make().embedder, make().embedder
    with pytest.raises(ConfigError, match="two specialists"):
        run(System(one, two, 0.5), dataset)


def test_nothing_of_the_system_changes(make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    before = {name: tensor.clone() for name, tensor in system.embedder.state_dict().items()}
    run(system, dataset, **QUICK)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[name]) for name, tensor in system.embedder.state_dict().items())
    assert len(NAMES) == 3
