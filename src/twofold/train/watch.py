"""`MemberWatch`: what happens around the steps of one member: the log, looks at dev, checkpoints, and going on after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from twofold.checkpoint import load_tensors, save_tensors, verify, write_folder
from twofold.config import TrialConfig
from twofold.data.mixing import ExampleSource
from twofold.errors import CheckpointError
from twofold.methods import Member, Stage
from twofold.model.unified import UnifiedModel
from twofold.train.dev import DevSet
from twofold.train.loop import Hooks, LoopState, Progress, StepReport, stage_ends, trainable
from twofold.train.state import latest, read_state, restore_optimiser, write_state


class MemberWatch:
    """Owns a member's folder. Only the main process writes; every process resumes from the same files."""

    def __init__(
        self,
        folder: Path,
        model: UnifiedModel,
        member: Member,
        config: TrialConfig,
        sources: Mapping[str, ExampleSource],
        dev: DevSet | None,
        accelerator: Accelerator,
        resume: bool,
    ) -> None:
        self.folder, self.model, self.member, self.config, self.dev, self.accelerator = folder, model, member, config, dev, accelerator
        self.resuming = resume
        self.steps = stage_ends(member, config.optim.steps)[-1][2]
        folder.mkdir(parents=True, exist_ok=True)
        self.generations, self.found = latest(folder / "checkpoints", config.checkpoint.keep)
        self.parameters = self._all_trained()
        self.must_match: dict[str, Any] = {
            "config": config.digest(),
            "data": {task: sources[task].sha256 for task in sorted(member.serves)},
            "precision": config.backbone.precision,
            "threads": torch.get_num_threads(),
            "processes": accelerator.num_processes,
            "device": accelerator.device.type,
            "torch": torch.__version__,
        }

    @property
    def log(self) -> Path:
        """One JSON line per optimiser step, and one per look at dev."""
        return self.folder / "log.jsonl"

    def start(self) -> LoopState:
        """The state to begin from: a fresh one, or the newest complete checkpoint's, with the log cut back to it."""
        if self.found is None or not self.resuming:
            self.log.write_bytes(b"")
            return LoopState()
        state = read_state(self.found, self.parameters, self.must_match)
        with self.log.open("r+b") as stream:
            if os.fstat(stream.fileno()).st_size < state.log_bytes:
                raise CheckpointError(f"{self.log}: shorter than when its checkpoint was written; restore it or remove {self.folder}")
            stream.truncate(state.log_bytes)
        return state

    def hooks(self, progress: Callable[[Progress], None]) -> Hooks:
        """The functions that the loop calls."""
        return Hooks(self._after_step, self._resume_optimiser, self._save, progress)

    def finish(self) -> None:
        """Leaves the model with its best weights on dev, where dev was looked at, or else its last ones."""
        best = self.folder / "best"
        if self.config.dev.every and best.is_dir():
            verify(best)
            weights = load_tensors(best / "weights.safetensors")
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(weights[name])

    def _after_step(self, state: LoopState, report: StepReport, optimiser: torch.optim.Optimizer) -> None:
        self._write(asdict(report), state)
        every = self.config.dev.every
        if self.dev is not None and every and (state.step % every == 0 or state.step == self.steps):
            self._look(state)
        if state.step % self.config.checkpoint.every == 0 or state.step == self.steps or state.stopped:
            self._save(state, optimiser)

    def _look(self, state: LoopState) -> None:
        """A look at dev by the main process; all processes hear the same."""
        assert self.dev is not None
        heard: list[Any] = [self.dev.look(self.model) if self.accelerator.is_main_process else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(heard)
        scores: dict[str, float] = heard[0]
        value = sum(scores.values()) / len(scores)
        self._write({"step": state.step, "dev": scores, "mean": value}, state)
        if value > state.best:
            state.best, state.stale = value, 0
            if self.accelerator.is_main_process:
                write_folder(self.folder / "best", lambda folder: save_tensors(folder / "weights.safetensors", self.parameters), overwrite=True)
        else:
            state.stale += 1
            state.stopped = 0 < self.config.dev.patience <= state.stale

    def _save(self, state: LoopState, optimiser: torch.optim.Optimizer) -> None:
        if self.accelerator.is_main_process:
            self.generations.save(state.step, lambda folder: write_state(folder, self.parameters, optimiser, state, self.must_match))
        self.accelerator.wait_for_everyone()

    def _resume_optimiser(self, stage: Stage, optimiser: torch.optim.Optimizer) -> None:
        """The saved optimiser state goes to the stage that it was written in, once."""
        if self.found is None or not self.resuming:
            return
        step = json.loads((self.found / "state.json").read_text())["state"]["step"]
        inside = next(start < step < end for own, start, end in stage_ends(self.member, self.config.optim.steps) if own is stage)
        if inside:
            restore_optimiser(self.found, self.parameters, optimiser)
        self.found = None

    def _write(self, line: Mapping[str, Any], state: LoopState) -> None:
        if self.accelerator.is_main_process:
            with self.log.open("ab") as stream:
                stream.write((json.dumps(line) + "\n").encode())
                stream.flush()
                os.fsync(stream.fileno())
                state.log_bytes = stream.tell()

    def _all_trained(self) -> dict[str, nn.Parameter]:
        """Every parameter that some stage trains, by name."""
        found: dict[str, nn.Parameter] = {}
        for stage in self.member.stages:
            for members in trainable(self.model, stage).values():
                found.update(members)
        return found
