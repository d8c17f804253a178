"""Killed anywhere and restarted, a trial ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trial import tiny_config
from tests.train.children import Children, wait_for
from twofold.config import TrialConfig

STEPS = 14


@pytest.fixture(scope="module")
def long_config(backbone_dir: Path, beir_dir: Path) -> TrialConfig:
    return tiny_config(backbone_dir, beir_dir, optim={"steps": STEPS}, dev={"every": 5, "patience": 3, "queries": 4, "depth": 5})


@pytest.fixture(scope="module")
def unbroken(children: Children, long_config: TrialConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "trial"
    assert children.run(long_config, folder) == [[0, ""]]
    return folder


def outcome(folder: Path) -> tuple[bytes, ...]:
    names = ("members/unified/log.jsonl", "members/unified/best/weights.safetensors", "model/model.safetensors")
    return tuple((folder / name).read_bytes() for name in names)


def lines(folder: Path) -> int:
    log = folder / "members" / "unified" / "log.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def test_killed_again_and_again(children: Children, long_config: TrialConfig, unbroken: Path, tmp_path: Path) -> None:
    """Three deaths at exact places while saving and logging, two at any moment of training."""
    folder, draw = tmp_path / "trial", random.Random(5)

    def kill_later(pids: list[int]) -> None:
        target = lines(folder) + draw.randint(1, 3)
        assert wait_for(lambda: lines(folder) >= target)
        os.kill(pids[0], signal.SIGKILL)

    for where in ("writing", "sealing", "moving", "logging"):
        ((code, words),) = children.run(long_config, folder, resume=True, die=[where, draw.randint(2, 3)])
        assert code == -signal.SIGKILL, words
        assert not (folder / "model").exists()
    for _ in range(2):
        ((code, words),) = children.run(long_config, folder, kill_later, resume=True)
        assert code == -signal.SIGKILL, words
    assert lines(folder) > 2
    assert children.run(long_config, folder, resume=True) == [[0, ""]]
    assert outcome(folder) == outcome(unbroken)


def test_killed_in_the_first_generation(children: Children, long_config: TrialConfig, unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    assert children.run(long_config, folder, die=["moving", 1])[0][0] == -signal.SIGKILL
    assert children.run(long_config, folder, resume=True) == [[0, ""]]
    assert outcome(folder) == outcome(unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_fails(
    number: signal.Signals, children: Children, long_config: TrialConfig, unbroken: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trial"

    def ask(pids: list[int]) -> None:
        assert wait_for(lambda: lines(folder) >= 3)
        os.kill(pids[0], number)

    ((code, words),) = children.run(long_config, folder, ask)
    assert code == 1
    assert f"TrainingInterrupted: stopped by {number.name} after step" in words
    assert "--resume" in words
    stopped_at = int(words.rpartition("after step ")[2].split(";")[0])
    assert (folder / "members" / "unified" / "checkpoints" / f"step-{stopped_at:09d}" / "manifest.json").is_file()
    assert children.run(long_config, folder, resume=True) == [[0, ""]]
    assert outcome(folder) == outcome(unbroken)


@pytest.mark.parametrize("name", ["ramole", "mixture_mean"])
def test_a_model_that_is_changed_without_training_goes_on_too(
    name: str, children: Children, backbone_dir: Path, beir_dir: Path, tmp_path: Path
) -> None:
    """Killed between steps (which experts are missing is part of the state), and after the last, before the model is in its place."""
    changes: dict[str, Any] = {"method": {"name": name}}
    if name == "ramole":
        config = tiny_config(backbone_dir, beir_dir, method={"name": "hard_lora"}, optim={"steps": 1})
        assert children.run(config, tmp_path / "start") == [[0, ""]]
        changes |= {"start": str(tmp_path / "start" / "model")}
    config = tiny_config(backbone_dir, beir_dir, **changes)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert children.run(config, whole) == [[0, ""]]
    for where, count in (("logging", 4), ("moving", 3)):  # of the three checkpoints, two are left; then comes the model
        assert children.run(config, broken, resume=True, die=[where, count])[0][0] == -signal.SIGKILL
        assert not (broken / "model").exists()
    assert children.run(config, broken, resume=True) == [[0, ""]]
    for file in ("members/unified/log.jsonl", "model/model.safetensors"):
        assert (broken / file).read_bytes() == (whole / file).read_bytes()
