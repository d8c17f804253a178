"""`fit` without a trial around it: a tiny setup, hooks that only take notes, and a source that looks at what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator

from tests.tiny_trial import tiny_examples
from twofold.config import TrialConfig
from twofold.methods import Member, Stage
from twofold.model.build import build_model
from twofold.records import Example
from twofold.train.loop import Hooks, LoopState, Setup, StepReport
from twofold.train.stages import Phase
from twofold.train.start import spec_of
from twofold.train.trial import method_of


@dataclass
class Source:
    """Made-up examples, the same for the same question; `asked` is (task, step, size, negatives, seed, rank, world)."""

    name: str = "made up"
    sha256: str = "0" * 64
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def __len__(self) -> int:
        return 1000

    def batch(self, task: str, step: int, size: int, negatives: int, seed: int, rank: int = 0, world: int = 1) -> list[Example]:
        self.asked.append((task, step, size, negatives, seed, rank, world))
        return tiny_examples(size * world, negatives, seed=seed * 1000 + step)[rank * size : (rank + 1) * size]


def make_setup(config: TrialConfig, member: Member | None = None, source: Source | None = None) -> Setup:
    """The first member of the config's method, or another, on a fresh model."""
    member = member or method_of(config).members[0]
    model = build_model(spec_of(config, member))
    sources = dict.fromkeys(config.tasks, source or Source())
    return Setup(model, member, sources, config.tasks, config.optim, config.seed, Accelerator(cpu=True))


def with_stages(member: Member, *stages: Stage) -> Member:
    return replace(member, stages=stages)


@dataclass
class Notes:
    """Hooks that remember."""

    reports: list[StepReport] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    each: Callable[[LoopState], None] = lambda _: None

    def hooks(self) -> Hooks:
        def after(state: LoopState, report: StepReport, _: Phase) -> None:
            self.reports.append(report)
            self.each(state)

        return Hooks(after, lambda phase: self.resumed.append(phase.stage.name), lambda state, _: self.saved.append(state.step))


def weights(setup: Setup, groups: Sequence[str] | None = None) -> Mapping[str, torch.Tensor]:
    """Copies of the model's parameters, of some groups or all."""
    found = setup.model.groups()
    return {name: p.detach().clone() for group, members in found.items() if groups is None or group in groups for name, p in members}
