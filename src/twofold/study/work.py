"""Doing a study: the next cell that nobody else is at, trained, measured and written, until all are done or the time is up."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold import config as configs
from twofold import provenance
from twofold.backbone.load import resolve
from twofold.cache import write_text
from twofold.config import TrialConfig
from twofold.data.labelled import LabelledDataset
from twofold.data.sources import locate
from twofold.errors import ConfigError, DataError, TrainingInterrupted
from twofold.model.folder import read_facts
from twofold.model.system import System
from twofold.study import measure
from twofold.study.grid import Cell, cells, measured, sources, sweep_of
from twofold.study.locks import held
from twofold.study.probing import look, wanted
from twofold.study.progress import Progress, progress_of
from twofold.study.store import Store
from twofold.study.trials import Trials
from twofold.tasks import variant_of
from twofold.train.dev import DevSets
from twofold.train.loop import Progress as Step
from twofold.train.trial import run_trial

Say = Callable[[str], None]
TIMING = "timing.json"
"""In a trial's folder: what its training took, if it was not cut off."""
PAUSE = 5.0
"""Seconds between two looks for work, where all that is left is in other hands or waits for it."""


@dataclass(frozen=True)
class Trained:
    """A trained system, the trial's folder, and what its training took here."""

    system: System
    folder: Path
    seconds: float
    """0 where the model was there already."""


class Worker:
    """One process at work on a study. Several of them, on one machine or on several with one file system, share it cell by cell."""

    def __init__(self, store: Store, trials: Path, only: tuple[str, ...] = (), say: Say = lambda _: None) -> None:
        self.store, self.study, self.only, self.say = store, store.study, only, say
        self.trials = Trials(trials, self.study.study.name, self.study.study.checkpoints)
        self.missing: set[str] = set()
        self.failed: dict[str, str] = {}
        """Label → error of the jobs that this process could not do. It leaves them, and does what does not need them."""

    def run(self, minutes: float | None = None) -> Progress:
        """Works until every cell is done or has failed, or none is left that would end within `minutes` by the longest of its kind.

        Raises ConfigError, before anything is trained, for a sweep that nothing could decide.
        """
        begun = time.monotonic()
        for each in {each: None for cell in cells(self.study, self.only) if self._has(cell) for each in self._with_starts(cell)}:
            self.store.check_sweep(each)
        while True:
            done = waiting = False
            for cell in self.todo():
                left = None if minutes is None else 60 * minutes - (time.monotonic() - begun)
                if left is not None and left < progress_of(self.store, self.only).longest(cell):
                    return progress_of(self.store, self.only)
                with held(self.lock(cell)) as mine:
                    if not mine or self.store.get(cell) is not None:
                        waiting = True
                        continue
                    with self._or_noted(cell.label):
                        self.do(cell)
                done = True
                break
            if not done and not waiting:
                self.adopt()
                self.probe(None if minutes is None else begun + 60 * minutes)
                return progress_of(self.store, self.only)
            self.say(str(progress_of(self.store, self.only)))
            if not done:
                time.sleep(PAUSE)

    def todo(self) -> Iterator[Cell]:
        """What can be done now: runs of the sweep, then cells whose rate is chosen; in the order of the grid."""
        for data in self.study.data:
            here = [cell for cell in cells(self.study, self.only) if cell.data == data and self._has(cell)]
            for run in dict.fromkeys(run for cell in here for each in self._with_starts(cell) for run in sweep_of(self.study, each)):
                if run.label not in self.failed and self._startable(run) and self.store.get(run) is None:
                    yield run
            for cell in here:
                ready = self._startable(cell) and self.store.resolved(cell)
                if ready and ready.label not in self.failed and self.store.get(ready) is None:
                    yield ready

    @contextmanager
    def _or_noted(self, label: str) -> Iterator[None]:
        """What fails inside is told and noted, and ends nothing else; being asked to stop is no failure."""
        try:
            yield
        except TrainingInterrupted:
            raise
        except Exception as error:
            self.failed[label] = f"{type(error).__name__}: {error}"
            self.say(f"{label}: failed\n{traceback.format_exc()}")

    def _has(self, cell: Cell) -> bool:
        """Whether the cell's backbone and data are on this machine; says once what is not."""
        config, spec = self.store.config(cell), self.study.data[cell.data]
        try:
            resolve(config.backbone.name)
            for name in (*sources(config), *spec.tests):
                locate(name)
        except (ConfigError, DataError) as error:
            if str(error) not in self.missing:
                self.missing.add(str(error))
                self.say(f"left out, such as {cell.label}: {error}")
            return False
        return True

    def _with_starts(self, cell: Cell) -> list[Cell]:
        """The cell and the cells that it starts from, the first of them first."""
        source = self.study.arms[cell.arm].start
        return [*(self._with_starts(replace(cell, arm=source)) if source else []), cell]

    def _startable(self, cell: Cell) -> bool:
        """Whether the rates of the arms that it starts from are chosen."""
        return all(self.store.resolved(replace(each, lr=None, sweeping=False)) is not None for each in self._with_starts(cell)[:-1])

    def probe(self, until: float | None = None) -> None:
        """Runs the study's probes on the models of its cells, which are trained again where they are gone."""
        for one in wanted(self.store, self.only):
            if until is not None and time.monotonic() > until:
                return
            with held(self.store.folder / ".locks" / f"{one.path.stem}.lock") as mine:
                if mine and not one.path.is_file():
                    label = f"{one.cell.label}: probe {one.probe.name}"
                    self.say(label)
                    with self._or_noted(label), ExitStack() as locks:
                        trained = self.train(one.cell, locks)
                        write_text(one.path, look(self.store, one, trained.system, trained.folder))
        self.tidy()

    def adopt(self) -> None:
        """Notes where the cells lie that another study has done."""
        for cell in filter(self._has, cells(self.study, self.only)):
            for job in dict.fromkeys([run for each in self._with_starts(cell) for run in sweep_of(self.study, each)] + [cell]):
                ready = self._ready(job)
                if ready is not None:
                    self.store.adopt(ready)

    def lock(self, cell: Cell) -> Path:
        """The file whose lock is held by whoever is at the cell."""
        return self.store.folder / ".locks" / f"{self.store.key(cell)}.lock"

    def do(self, cell: Cell) -> dict[str, Any]:
        """Trains and measures one cell, writes its file, and tidies up."""
        self.say(f"{cell.label}: begun")
        with ExitStack() as locks:
            trained, clock = self.train(cell, locks), time.monotonic()
            dev = measure.dev_scores(trained.system, self._dev(cell), list(self.store.config(cell).tasks))
            content = {**self._facts(cell, trained), "dev": dev, "criterion": round(sum(dev.values()) / len(dev), 6) if dev else None}
            if not cell.sweeping:
                content |= self._measured(cell, trained.system)
            seconds = {"train": round(trained.seconds, 1), "measure": round(time.monotonic() - clock, 1)}
            content |= {"seconds": seconds, "environment": provenance.environment()}
            self.store.put(cell, content)
        self.tidy()
        scores = ", ".join(f"{name} {value:.4f}" for name, value in dev.items())
        self.say(f"{cell.label}: done, {seconds['train']:.0f} s of training, {seconds['measure']:.0f} s of measuring; on dev {scores}")
        return content

    def train(self, cell: Cell, locks: ExitStack) -> Trained:
        """The cell's trained system, and before it the one that it starts from; what is there is opened, what was cut off goes on.

        Both stay until `locks` are let go of; others may use them meanwhile.
        """
        source, key, trained = self.store.start_of(cell), self.store.trial_key(cell), None
        if source is not None and not self.trials.stays(self.store.trial_key(source), locks):
            self.train(source, locks)
        while not self.trials.stays(key, locks):
            with held(self.trials.lock(key)) as alone:  # without waiting: whoever has trained it by then may use it for hours
                if alone:
                    self.trials.keep(key)
                    trained = self._trained(cell)
        return trained or self._trained(cell)

    def _trained(self, cell: Cell) -> Trained:
        """The cell's trial, done or opened. The caller holds its lock, and that of the trial that it starts from."""
        source, folder = self.store.start_of(cell), self.trials.folder(self.store.trial_key(cell))
        start = None if source is None else str(self.trials.model(self.store.trial_key(source)))
        config, spec = _as_begun(self.store.config(cell, start), folder), self.study.data[cell.data]
        there, begun = (folder / "model").is_dir(), time.monotonic()
        last: dict[str, Step] = {}
        system = run_trial(
            config.model_copy(update={"name": f"study-{folder.name}"}),
            folder,
            resume=True,
            say=lambda line: self.say(f"{cell.label}: {line}"),
            progress=lambda member, now: last.__setitem__(member, now),
            datasets=self.store.samples.all(sources(config), spec),
        )
        if not there:
            seconds, tokens = sum(step.seconds for step in last.values()), sum(step.tokens for step in last.values())
            took = {"seconds": round(time.monotonic() - begun, 1), "tokens_per_second": round(tokens / seconds, 1) if seconds else None}
            write_text(folder / TIMING, json.dumps(took) + "\n")
        return Trained(system, folder, 0.0 if there else time.monotonic() - begun)

    def tidy(self) -> None:
        """Removes trials that no study needs: what lost a sweep, and cells' unless the study keeps them; and checkpoints of done trials."""
        done: set[str] = set()
        needed: set[str] = set()
        probing = {one.cell for one in wanted(self.store) if not one.path.is_file()}
        for cell in filter(self._has, cells(self.study)):
            for each in self._with_starts(cell):
                for job in (*sweep_of(self.study, each), each):
                    ready = self._ready(job)
                    if ready is None:
                        continue
                    pending = self.study.study.keep or self._found(cell) is None or self._ready(cell) in probing
                    open_ = self.store.chosen(each) is None if job.sweeping else pending
                    (needed if open_ else done).add(self.store.trial_key(ready))
        for key in needed | done:
            self.trials.tidy(key, key in needed)

    def _ready(self, job: Cell) -> Cell | None:
        """The job with its learning rate, if everything that its key depends on is known."""
        if not self._startable(job):
            return None
        return job if job.sweeping else self.store.resolved(job)

    def _found(self, cell: Cell) -> dict[str, Any] | None:
        ready = self._ready(cell)
        return None if ready is None else self.store.get(ready)

    def _dev(self, cell: Cell) -> DevSets | None:
        return self.store.samples.dev(sources(self.store.config(cell)), self.study.data[cell.data])

    def _facts(self, cell: Cell, trained: Trained) -> dict[str, Any]:
        """What the cell is, and how its system was made."""
        facts = read_facts(trained.folder / "model")
        train = facts.get("train") or {}
        timing = json.loads((trained.folder / TIMING).read_text(encoding="utf-8")) if (trained.folder / TIMING).is_file() else {}
        return {
            "study": self.study.study.name,
            "cell": {"data": cell.data, "backbone": cell.backbone, "arm": cell.arm, "seed": cell.seed, "sweeping": cell.sweeping},
            "key": self.store.key(cell),
            "trial": self.store.trial_key(cell),
            "lr": cell.lr,
            "method": facts["method"],
            "options": facts["options"],
            "config": {**facts["config"], "start": self.study.arms[cell.arm].start},
            "train": {key: train[key] for key in ("steps", "tokens", "truncated", "batch", "parameters") if key in train},
            "parameters": facts["parameters"],
            "timing": timing,
            "rerank_weight": trained.system.rerank_weight,
        }

    def _measured(self, cell: Cell, system: System) -> dict[str, Any]:
        """The test sets' rows, what they were, and the routers' mean weights on the first of them."""
        config, spec = self.store.config(cell), self.study.data[cell.data]
        kinds, variant = measured(config), variant_of(next(iter(config.tasks)))
        grown = System.of(system.embedder, variant) if variant else system
        older = System.of(system.embedder) if variant else system
        tests: dict[str, Any] = {}
        gates: dict[str, Any] = {}
        for name in spec.tests:
            system = grown if name in config.data.train else older  # what was added for a domain is asked about that domain
            dataset = self.store.samples.open(name, spec)
            if isinstance(dataset, LabelledDataset):
                if "classify" in kinds:
                    about = {"fingerprint": dataset.fingerprint, "texts": len(dataset.split("test"))}
                    tests[name] = {**about, **measure.label_rows(system.embedder, dataset)}
                continue
            given = self.store.samples.candidates(name, spec)
            about = {"fingerprint": dataset.fingerprint, "documents": len(dataset.corpus), "queries": len(dataset.qrels("test"))}
            about |= {"candidates": {"by": "bm25", "queries": len(given.run), "present": round(given.present, 4), "sha256": given.sha256}}
            tests[name] = {**about, **measure.ranking_rows(system, dataset, given, kinds, self.study.measure)}
            gates = gates or measure.gates(system, dataset, given)
        return {"tests": tests, "gates": gates}


def _as_begun(config: TrialConfig, folder: Path) -> TrialConfig:
    """The settings of a trial with those of where it runs, and how often it is saved, as another study may have begun it."""
    path = folder / "config.toml"
    if not path.is_file():
        return config
    begun = configs.read(path)
    return config.model_copy(update={name: getattr(begun, name) for name in ("checkpoint", "device", "threads")})
