"""What a stage's companion and the routers' buffers hold goes on after a kill as if nothing had happened, bit for bit."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.children import Children
from tests.train.conftest import MakeConfig
from tests.train.test_interruptions import lines
from tests.train.test_watch import assert_equal, run
from twofold.errors import CheckpointError
from twofold.model.state import state_of
from twofold.train import watch

OPTIONS: dict[str, dict[str, Any]] = {
    "famo": {},
    "uncertainty": {},
    "mola": {"experts": [3, 2], "rank": 2, "balance": 1.0},
    "align_lora": {"rank": 4, "weight": 1.0},
    "dr_lora": {"start": 1, "target": 3, "most": 4, "rounds": 2, "last": 0.9},
    "smora": {"rank": 6, "active": 2},
    "permuted": {"rank": 2, "donors": 30},
}


def settings(name: str) -> dict[str, Any]:
    return {"method": {"name": name, "options": OPTIONS[name]}}


@pytest.mark.parametrize("until", [3, 5])
@pytest.mark.parametrize("name", OPTIONS)
def test_going_on_is_bit_equal(name: str, until: int, make_config: MakeConfig, tmp_path: Path) -> None:
    """Parameters, buffers and the log."""
    config = make_config(**settings(name))
    whole, _ = run(tmp_path / "whole", config)
    run(tmp_path / "broken", config, until=until)
    again, _ = run(tmp_path / "broken", config, resume=True)
    assert_equal(state_of(again.model), state_of(whole.model))
    assert (tmp_path / "broken" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["famo", "uncertainty", "mola", "align_lora", "dr_lora"])
def test_without_what_the_companion_remembers_it_would_be_another_training(
    name: str, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above can fail."""
    config = make_config(**settings(name))
    whole, _ = run(tmp_path / "whole", config)
    run(tmp_path / "broken", config, until=5)
    real = watch.restore_weights
    monkeypatch.setattr(watch, "restore_weights", lambda path, own: None if path.name == watch.COMPANION else real(path, own))
    again, _ = run(tmp_path / "broken", config, resume=True)
    there, here = state_of(again.model), state_of(whole.model)
    assert any(not torch.equal(there[key], here[key]) for key in here)


def test_only_a_companion_with_tensors_is_saved_and_another_ones_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    run(tmp_path / "plain", make_config(), until=2)
    assert not list((tmp_path / "plain").glob("checkpoints/*/companion.safetensors"))
    config = make_config(**settings("famo"))
    run(tmp_path / "famo", config, until=3)
    (path,) = (tmp_path / "famo").glob("checkpoints/*/companion.safetensors")
    with pytest.raises(CheckpointError, match="holds other weights"):
        watch.restore_weights(path, {"score": torch.zeros(3)})
    path.unlink()
    with pytest.raises(CheckpointError):
        run(tmp_path / "famo", config, resume=True)


@pytest.mark.parametrize("name", ["famo", "dr_lora"])
def test_killed_while_saving_and_while_logging(name: str, children: Children, make_config: MakeConfig, tmp_path: Path) -> None:
    config, draw = make_config(**settings(name), optim={"steps": 8}), random.Random(3)
    assert children.run(config, tmp_path / "whole" / "trial") == [[0, ""]]
    folder = tmp_path / "broken" / "trial"
    for where in ("sealing", "moving", "logging"):
        ((code, words),) = children.run(config, folder, resume=True, die=[where, draw.randint(2, 3)])
        assert code == -signal.SIGKILL, words
    assert lines(folder) > 2
    assert children.run(config, folder, resume=True) == [[0, ""]]
    for found in ("members/unified/log.jsonl", "model/model.safetensors"):
        assert (folder / found).read_bytes() == (tmp_path / "whole" / "trial" / found).read_bytes()
