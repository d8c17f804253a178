"""A method in joint training without a trial around it: a tiny model, and steps on made-up examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.tiny_trial import tiny_config, write_backbone
from tests.train.setups import Notes, make_setup
from twofold.methods import Companion
from twofold.train.loop import LoopState, Setup, fit
from twofold.train.stages import Phase, spans, trainable


def joint(folder: Path, name: str, options: Mapping[str, Any] | None = None, steps: int = 4, **changes: Any) -> Setup:
    """The method on a fresh model of two layers."""
    backbone = write_backbone(folder / "backbone")
    config = tiny_config(backbone, folder, method={"name": name, "options": dict(options or {})}, optim={"steps": steps}, **changes)
    return make_setup(config)


def train(setup: Setup, each: Callable[[int, Phase], None] = lambda *_: None) -> Notes:
    """Trains to the end; `each` sees every step and its phase."""
    notes = Notes()
    hooks = notes.hooks()

    def after(state: LoopState, report: Any, phase: Phase) -> None:
        hooks.after_step(state, report, phase)
        each(state.step, phase)

    fit(setup, LoopState(), type(hooks)(after, hooks.resume, hooks.save))
    return notes


def companion_of(setup: Setup) -> Companion:
    """The companion of the only stage, as training would begin with it."""
    (span,) = spans(setup.member, setup.optim.steps)
    trainable(setup.model, span.stage)
    return span.stage.companion(span.stage, setup.model, span.end - span.start, lambda tensor: tensor)
