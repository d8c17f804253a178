"""`MemberWatch`: what happens around the steps of one member: the log, looks at dev, checkpoints, and going on after a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor

from twofold.backbone.load import weights_sha256
from twofold.checkpoint import Generations, load_tensors, save_tensors, verify, write_folder
from twofold.config import TrialConfig
from twofold.errors import CheckpointError
from twofold.model.folder import manifest_sha256
from twofold.model.state import state_of
from twofold.train.dev import DevSets
from twofold.train.loop import Hooks, LoopState, Progress, Setup, StepReport
from twofold.train.merge import merge_steps, merged
from twofold.train.stages import Phase, spans, trained
from twofold.train.state import COMPANION, WEIGHTS, optimiser_tensors, read_state, restore_optimiser, restore_weights, write_state


class MemberWatch:
    """Owns a member's folder. Only the main process writes; every process resumes from the same files."""

    def __init__(self, folder: Path, setup: Setup, config: TrialConfig, dev: DevSets | None, resume: bool) -> None:
        self.folder, self.setup, self.config, self.dev = folder, setup, config, dev
        self.main = setup.accelerator.is_main_process
        self.spans = spans(setup.member, setup.optim.steps)
        self.parameters = trained(setup.model, setup.member)
        self.generations = Generations(folder / "checkpoints", config.checkpoint.keep)
        self.found = self.generations.latest() if resume else None
        self.saved: int | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """One JSON line per optimiser step, and one per look at dev."""
        return self.folder / "log.jsonl"

    @property
    def best(self) -> Path:
        """The weights that were best on dev."""
        return self.folder / "best"

    @cached_property
    def must_match(self) -> dict[str, Any]:
        """What decides the numbers besides the weights: going on under anything else would not be the same training."""
        setup = self.setup
        return {
            "config": self.config.digest(),
            "backbone": weights_sha256(self.config.backbone.name),
            "start": None if self.config.start is None else manifest_sha256(self.config.start),
            "data": {task: setup.sources[task].sha256 for task in sorted((*setup.member.serves, *setup.member.learns))},
            "precision": [self.config.backbone.precision, torch.get_float32_matmul_precision()],
            "threads": torch.get_num_threads(),
            "processes": setup.accelerator.num_processes,
            "device": setup.accelerator.device.type,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__},
        }

    @property
    def merging(self) -> dict[int, Path]:
        """Step → where its weights lie, of those that become one at the end."""
        return {step: self.folder / "merge" / str(step) for step in merge_steps(self.setup.member.merge, self.setup.optim.steps)}

    def start(self) -> LoopState:
        """The state to begin from: a fresh one, or the newest complete checkpoint's, with the log cut back to it."""
        if self.found is None:
            set_seed(self.config.seed)
            self._cut_log(0)
            return LoopState()
        state = read_state(self.found.folder, self._weights(), self.must_match)
        if not self.log.is_file() or self.log.stat().st_size < state.log_bytes:
            raise CheckpointError(f"{self.log}: shorter than when its checkpoint was written; restore it or remove {self.folder}")
        self._cut_log(state.log_bytes)
        return state

    def hooks(self, progress: Callable[[Progress], None]) -> Hooks:
        """The functions that the loop calls."""
        return Hooks(self._after_step, self._resume, self._save, progress)

    def finish(self, state: LoopState) -> None:
        """Leaves the model with its merged weights where the method wants that; else its best on dev, if there was a look, or its last."""
        if done := [folder for step, folder in self.merging.items() if step <= state.step]:
            for folder in done:
                verify(folder)
            whole = merged(load_tensors(folder / WEIGHTS) for folder in done)
            for name, tensor in self._weights().items():
                tensor.copy_(whole[name])
        elif state.best > -math.inf:
            verify(self.best)
            restore_weights(self.best / WEIGHTS, self._weights())

    def _after_step(self, state: LoopState, report: StepReport, phase: Phase) -> None:
        self._write(asdict(report), state)
        last = state.step == self.spans[-1].end
        if self.main and state.step in self.merging:
            self._keep(self.merging[state.step])
        every = self.config.dev.every
        if self.dev is not None and every and (state.step % every == 0 or last):
            self._look(self.dev, state)
        if state.step % self.config.checkpoint.every == 0 or last or state.stopped:
            self._save(state, phase)

    def _look(self, dev: DevSets, state: LoopState) -> None:
        """A look at dev by the main process; all processes hear the same.

        Before the last stage it is only noted: a model half made is neither the best one nor a reason to stop.
        """
        heard: list[Any] = [dev.look(self.setup.model, self.setup.member.serves) if self.main else None]
        if self.setup.accelerator.num_processes > 1:
            broadcast_object_list(heard)
        scores: dict[str, float] = heard[0]
        value = sum(scores.values()) / len(scores)
        self._write({"step": state.step, "dev": scores, "mean": value}, state)
        if state.step <= self.spans[-1].start:
            return
        if value > state.best:
            state.best, state.stale = value, 0
            if self.main:
                self._keep(self.best)
        else:
            state.stale += 1
            state.stopped = 0 < self.config.dev.patience <= state.stale

    def _save(self, state: LoopState, phase: Phase) -> None:
        if self.main and self.saved != state.step:
            tensors, own = optimiser_tensors(self.parameters, phase.optimiser), phase.companion.tensors
            self.generations.save(state.step, lambda folder: write_state(folder, self._weights(), tensors, state, self.must_match, own))
            self.saved = state.step
        self.setup.accelerator.wait_for_everyone()

    def _keep(self, place: Path) -> None:
        write_folder(place, lambda folder: save_tensors(folder / WEIGHTS, self._weights()), overwrite=True)

    def _resume(self, phase: Phase) -> None:
        """The saved states go to the stage that they were written in; a stage begins with a fresh optimiser and companion."""
        if self.found is not None and phase.span.start < self.found.step < phase.span.end:
            restore_optimiser(self.found.folder, self.parameters, phase.optimiser)
            if phase.companion.tensors:
                restore_weights(self.found.folder / COMPANION, phase.companion.tensors)

    def _weights(self) -> dict[str, Tensor]:
        """The model's own tensors that can change: experts, routers, heads, and whatever is trained of the backbone."""
        state = state_of(self.setup.model)
        own = {name: parameter for name, parameter in self.setup.model.groups()["backbone"] if name in self.parameters}
        return {**state, **{f"backbone.{name}": parameter.detach() for name, parameter in own.items()}}

    def _write(self, line: Mapping[str, Any], state: LoopState) -> None:
        if not self.main:
            return
        try:
            with self.log.open("ab") as stream:
                stream.write(_line(line))
                stream.flush()
                os.fsync(stream.fileno())
                state.log_bytes = stream.tell()
        except OSError as error:
            raise CheckpointError(f"{self.log}: could not be written: {error.strerror or error}") from error

    def _cut_log(self, size: int) -> None:
        if self.main:
            self.log.touch()
            os.truncate(self.log, size)


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode()
