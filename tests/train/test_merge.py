"""Checkpoints made one, on an arc."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch

from tests.train.conftest import MakeConfig
from twofold.checkpoint import load_tensors
from twofold.model.state import backbone_state
from twofold.train.merge import merge_steps, merged, slerp
from twofold.train.trial import run_trial


def test_the_last_half_in_equal_parts() -> None:
    assert merge_steps(0, 40) == ()
    assert merge_steps(1, 40) == (40,)
    assert merge_steps(2, 40) == (30, 40)
    assert merge_steps(4, 40) == (25, 30, 35, 40)


def test_slerp_goes_along_the_arc() -> None:
    """On a circle of radius 2 from 0° to 90°: a third of the way is 30°, and still on the circle."""
    a, b = torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0], [2.0]])
    third = slerp(a, b, 1 / 3)
    assert third.flatten().tolist() == pytest.approx([2 * math.cos(math.pi / 6), 2 * math.sin(math.pi / 6)])
    assert torch.equal(slerp(a, b, 0.0), a) and slerp(a, b, 1.0).flatten().tolist() == pytest.approx([0.0, 2.0], abs=1e-7)


def test_slerp_of_what_has_no_arc_is_a_line() -> None:
    a = torch.tensor([3.0, 4.0])
    assert slerp(a, 2 * a, 0.5).tolist() == pytest.approx([4.5, 6.0])
    assert slerp(torch.zeros(2), a, 0.25).tolist() == pytest.approx([0.75, 1.0], abs=1e-6)
    assert slerp(a, -a, 0.25).tolist() == pytest.approx([1.5, 2.0])


def test_each_checkpoint_counts_the_same() -> None:
    angles = [0.1, 0.4, 1.0]
    states = [{"w": torch.tensor([math.cos(a), math.sin(a)]), "n": torch.tensor(i)} for i, a in enumerate(angles)]
    found = merged(states)
    assert math.atan2(*reversed(found["w"].tolist())) == pytest.approx(sum(angles) / 3, abs=1e-6)
    assert int(found["n"]) == 2


def test_a_trial_ends_with_its_merged_weights_also_after_a_kill(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(method={"name": "specialists", "options": {"merge": 2}}, optim={"steps": 6, "lr_backbone": 1e-2})
    model = run_trial(config, tmp_path / "trial").embedder
    kept = tmp_path / "trial" / "members" / "retrieve" / "merge"
    assert sorted(path.name for path in kept.iterdir()) == ["5", "6"]
    states = [load_tensors(kept / step / "weights.safetensors") for step in ("5", "6")]
    got = {f"backbone.{name}": tensor for name, tensor in backbone_state(model).items()}
    for name, tensor in states[0].items():
        assert torch.equal(got[name], slerp(tensor, states[1][name], 0.5))
    name = "backbone.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(got[name], states[1][name])
    shutil.rmtree(tmp_path / "trial" / "model")
    for member in (tmp_path / "trial" / "members").iterdir():
        shutil.rmtree(member / "merge")
        shutil.rmtree(max((member / "checkpoints").iterdir()))
    again = backbone_state(run_trial(config, tmp_path / "trial", resume=True).embedder)
    assert all(torch.equal(tensor, got[f"backbone.{name}"]) for name, tensor in again.items())
