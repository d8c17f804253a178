"""Every config of configs/methods is valid and shares everything else with the others of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from twofold.config import TrialConfig, read
from twofold.prompts import prompts_of
from twofold.records import Labelled
from twofold.tasks import build_task, reads
from twofold.train.start import task_options
from twofold.train.trial import method_of

FOLDER = ROOT / "configs" / "methods"
CONFIGS = sorted(FOLDER.rglob("*.toml"))
DECODER = ("e2rank", "full_joint", "hard_lora", "moe_lora", "shared_lora", "specialists")


def shared(config: TrialConfig) -> tuple[object, ...]:
    """What decides whether two rows can stand in one table."""
    tasks = [(task, config.tasks[task].batch, config.tasks[task].negatives) for task in ("retrieve", "rerank")]
    lengths = config.optim.max_length, config.optim.pair_length, config.optim.lr, config.optim.schedule
    return (
        config.data,
        config.dev,
        config.backbone.name,
        config.backbone.max_length,
        config.backbone.pair_length,
        tasks,
        lengths,
        config.seed,
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_it_can_be_trained_and_compared(path: Path) -> None:
    config = read(path)
    assert config.name == "-".join(("methods", *path.relative_to(FOLDER).with_suffix("").parts))
    method = method_of(config)
    for member in method.members:
        for task, options in task_options(config, member, {}).items():
            labels = {"labels": ["a", "b"]} if reads(task) is Labelled else {}
            assert build_task(task, {**labels, **options}, 32).name == task
    assert prompts_of(config.backbone.template, config.backbone.instruction, config.backbone.prompts) is not None
    assert shared(config) == shared(read(path.parent / "full_joint.toml"))


def test_the_decoder_runs_what_it_has_to() -> None:
    assert set(DECODER) <= {path.stem for path in FOLDER.glob("decoder/*.toml")}
