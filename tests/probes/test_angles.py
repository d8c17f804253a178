"""Angles between experts of which the angles are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from scipy.linalg import subspace_angles

from tests.probes.conftest import SOFT, MakeSystem
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.folder import save
from twofold.model.system import System
from twofold.probes._looking import Factors
from twofold.probes.angles import angles, cosine, decomposed, overlap, run


def copy_expert(system: System, source: str, target: str, factor: float = 1.0) -> None:
    """Makes one expert another, in every layer; its B times a factor."""
    for layer in mixtures(system.embedder.backbone.model):
        layer.bank.get_parameter(f"a.{target}").data.copy_(layer.bank.get_parameter(f"a.{source}"))
        layer.bank.get_parameter(f"b.{target}").data.copy_(layer.bank.get_parameter(f"b.{source}") * factor)


def test_two_equal_experts_have_no_angle(make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    copy_expert(system, "embedding", "reranking", factor=-2.0)
    for row in run(system, dataset)["tables"]["pairs"]:
        if (row["a"], row["b"]) == ("embedding", "reranking"):
            assert [row["column_degrees"], row["row_degrees"]] == pytest.approx([0, 0], abs=1e-4)
            assert [row["column_overlap"], row["row_overlap"]] == pytest.approx([1, 1])
            assert row["cosine"] == pytest.approx(-1)
        else:
            assert float(str(row["column_degrees"])) > 20 and float(str(row["column_overlap"])) < 0.9
            assert 0 < float(str(row["random_row_overlap"])) < 0.5


def test_a_twin_is_the_reference(make: MakeSystem, dataset: Dataset, tmp_path: Path) -> None:
    system = make()
    save(system.embedder, tmp_path / "twin")
    report = run(system, dataset, twin=str(tmp_path / "twin"))
    assert report["facts"]["twin_row_overlap"] == pytest.approx(1)
    assert report["facts"]["twin_cosine"] == pytest.approx(1)
    assert any("same seed" in note for note in report["notes"])
    assert len(report["tables"]["means"]) == 6
    save(make(LayerPlan((Expert("stranger", 2),))).embedder, tmp_path / "other")
    with pytest.raises(ConfigError, match="no expert in the same layer"):
        run(system, dataset, twin=str(tmp_path / "other"))


def test_an_untrained_expert_spans_nothing(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(size=0.0), dataset)
    assert report["facts"]["pair_column_overlap"] is None
    assert {row["rank"] for row in report["tables"]["experts"]} == {0}


def test_angles_are_scipys_and_orthogonal_spaces_are_at_ninety_degrees() -> None:
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.linalg.qr(torch.randn(12, r, generator=draw, dtype=torch.float64))[0] for r in (3, 4))
    want = sorted(subspace_angles(one.numpy(), two.numpy()))
    assert torch.allclose(torch.deg2rad(angles(one, two)), torch.tensor(want), atol=1e-9)
    eye = torch.eye(6, dtype=torch.float64)
    assert angles(eye[:, :2], eye[:, 2:4]).tolist() == [90, 90]
    assert overlap(eye[:, :2], eye[:, 2:4]) == 0
    assert angles(eye[:, :2], eye[:, 1:3]).tolist() == [0, 90]
    assert overlap(eye[:, :2], eye[:, 1:3]) == 0.5


def test_random_spaces_overlap_by_rank_over_width() -> None:
    draw = torch.Generator().manual_seed(1)
    drawn = [torch.linalg.qr(torch.randn(64, 4, generator=draw, dtype=torch.float64))[0] for _ in range(200)]
    values = [overlap(a, b) or 0.0 for a, b in itertools.pairwise(drawn)]
    assert sum(values) / len(values) == pytest.approx(4 / 64, rel=0.1)


def test_a_decomposition_is_that_of_the_whole_update() -> None:
    draw = torch.Generator().manual_seed(2)
    a, b = torch.randn(3, 10, generator=draw), torch.randn(8, 3, generator=draw)
    a[2] = a[0]  # stored with three ranks, of two
    found = decomposed(Factors(a, b))
    assert len(found.value_r) == 2
    whole = (found.column_Dr * found.value_r) @ found.row_Dr.T
    assert torch.allclose(whole.float(), b @ a, atol=1e-5)
    other = Factors(torch.randn(2, 10, generator=draw), torch.randn(8, 2, generator=draw))
    want = torch.cosine_similarity((b @ a).flatten(), (other.b_DR @ other.a_RD).flatten(), dim=0)
    assert cosine(Factors(a, b), other) == pytest.approx(float(want), abs=1e-6)


def test_a_bank_that_shares_its_a_reads_the_same(make: MakeSystem, dataset: Dataset) -> None:
    shared = LayerPlan(SOFT.experts, router="soft", bank="shared_down")
    facts = run(make(shared), dataset)["facts"]
    assert facts["pair_row_overlap"] == pytest.approx(1)
    assert float(str(facts["pair_column_overlap"])) < 0.9
