"""Probes that find what was planted, and none that find what was not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.probes.conftest import MakeSystem
from twofold.core.inject import mixtures
from twofold.data.sources import Dataset
from twofold.probes.content import INPUT, RANDOM, control_labels, measured, run

DRAW = np.random.default_rng(0)
N = 200
LABELS = np.array(["low", "high"])[DRAW.integers(2, size=N)]
GROUPS = np.arange(N) // 2


def test_a_planted_feature_is_found() -> None:
    x = DRAW.normal(size=(N, 8))
    x[:, 3] += 2.0 * (LABELS == "high")
    assert measured(x, LABELS, GROUPS, 0).mean() > 0.75


def test_a_random_one_is_not() -> None:
    assert measured(DRAW.normal(size=(N, 8)), LABELS, GROUPS, 0).mean() == pytest.approx(0.5, abs=0.1)
    assert measured(np.zeros((N, 8)), LABELS, GROUPS, 0).mean() == pytest.approx(0.5, abs=0.1)


def test_a_probe_that_learns_words_by_heart_is_not_selective() -> None:
    """Its features are which word an input has: the property is not there, the control is."""
    key = np.array([f"word{i % 10}" for i in range(N)])
    x = np.eye(10)[[int(each[4:]) for each in key]]
    control = control_labels(LABELS, key, 0)
    assert measured(x, control, GROUPS, 0).mean() > 0.95
    assert measured(x, LABELS, GROUPS, 0).mean() < 0.65


def test_a_group_is_never_on_both_sides() -> None:
    """Features that give away the group and nothing else do not help."""
    labels = np.array(["low", "high"])[DRAW.integers(2, size=N // 2)].repeat(2)
    x = np.eye(N // 2)[GROUPS]
    assert measured(x, labels, GROUPS, 0).mean() < 0.6


def test_rare_classes_count_as_much_as_frequent_ones() -> None:
    labels = np.array(["rare"] * 20 + ["usual"] * 180)
    assert measured(np.zeros((200, 2)), labels, np.arange(200), 0).mean() == pytest.approx(0.5, abs=0.01)


def test_controls_keep_the_shares_and_belong_to_words() -> None:
    key = np.array([f"word{i % 40}" for i in range(N)])
    control = control_labels(LABELS, key, 0)
    assert len({(k, c) for k, c in zip(key, control, strict=True)}) == 40
    assert abs(int((control == "high").sum()) - int((LABELS == "high").sum())) <= 5
    assert list(control_labels(LABELS, key, 1)) != list(control)


def test_an_expert_that_reads_nothing_has_no_selectivity(make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    for layer in mixtures(system.embedder.backbone.model):
        with torch.no_grad():
            layer.bank.get_parameter("a.reranking").zero_()
    report = run(system, dataset, split="train", queries=32, controls=1)
    rows = report["tables"]["probes"]
    assert {row["expert"] for row in rows} == {"embedding", "reranking", "shared", RANDOM, INPUT}
    assert {row["block"] for row in rows} == {"encoder.layer.0", "encoder.layer.1"}
    by_expert = {
        name: [float(str(row["score"])) for row in rows if row["expert"] == name and row["property"] == "relevance"]
        for name in ("reranking", INPUT)
    }
    assert max(abs(score - 0.5) for score in by_expert["reranking"]) < 0.15
    pairs = {str(row["property"]) for row in rows if row["side"] == "pair"}
    assert {"relevance", "overlap", "idf"} <= pairs
    assert any("question has no two classes" in note for note in report["notes"])
    assert all(float(str(row["low"])) <= float(str(row["selectivity"])) <= float(str(row["high"])) for row in rows)
