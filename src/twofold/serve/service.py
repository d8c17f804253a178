"""What the routes share: the loaded model and what state it is in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from twofold.model.state import fingerprint
from twofold.model.system import System
from twofold.serve.engine import Engine
from twofold.serve.library import Library
from twofold.serve.metrics import Metrics
from twofold.serve.refusals import Refusal
from twofold.tasks import task_name

log = logging.getLogger(__name__)
Status: TypeAlias = Literal["ok", "loading", "draining", "failed"]


@dataclass(frozen=True)
class Loaded:
    """What there is to serve. `systems`: the default under "", variants by name."""

    systems: Mapping[str, System]
    library: Library | None = None


class Service:
    """Begins without a model: `start` loads it in a thread, and until then everybody is told to come back."""

    def __init__(self, name: str, *, max_wait: float = 2.0, max_bulk_wait: float = 30.0) -> None:
        self.name, self.max_wait, self.max_bulk_wait = name, max_wait, max_bulk_wait
        self.status: Status = "loading"
        self.created = int(time.time())
        self.fingerprints: dict[str, str] = {}
        """Of what makes each system's vectors; all weights are read for it, so they are made once."""
        self.metrics = Metrics()
        self.metrics.watch(lambda: self._engine.queue.load if self._engine else {}, lambda: self.why_not() is None)
        self._engine: Engine | None = None
        self._library: Library | None = None
        self.error: Exception | None = None

    @property
    def engine(self) -> Engine:
        """Raises Refusal while there is none."""
        if self._engine is None:
            raise self.why_not() or Refusal(503, "loading", "the model is being loaded", retry_after=5)
        return self._engine

    @property
    def library(self) -> Library:
        """Raises Refusal where there is no index."""
        if self._library is None:
            raise Refusal(404, "no_index", "this server has no index: start it with --index")
        return self._library

    @property
    def has_library(self) -> bool:
        """Whether there is an index."""
        return self._library is not None

    def start(self, load: Callable[[], Loaded]) -> threading.Thread:
        """Loads in a thread; a failure is logged, kept in `error`, and shown as status."""

        def work() -> None:
            try:
                self.open(load())
            except Exception as error:
                self.status, self.error = "failed", error
                log.error("could not load: %s", error)

        thread = threading.Thread(target=work, name="loading", daemon=True)
        thread.start()
        return thread

    def open(self, loaded: Loaded) -> None:
        """Takes work from now on, after a few passes that tell how fast this machine is."""
        self.fingerprints = {
            name: fingerprint(system.embedder, task_name("retrieve", system.variant)) for name, system in loaded.systems.items()
        }
        engine = Engine(dict(loaded.systems), max_wait=self.max_wait, max_bulk_wait=self.max_bulk_wait, watch=self.metrics.saw_pass)
        engine.warm()
        self._engine, self._library = engine, loaded.library
        if self.status == "loading":
            self.status = "ok"

    def why_not(self) -> Refusal | None:
        """Why the model cannot be asked now; None where it can."""
        if self.status == "loading":
            return Refusal(503, "loading", "the model is being loaded", retry_after=5)
        if self.status == "failed":
            return Refusal(503, "failed", "the model could not be loaded; the server's log says why", retry_after=60)
        if self.status == "draining":
            return Refusal(503, "draining", "the server is shutting down", retry_after=5)
        if self._engine is not None and not self._engine.worker.alive:
            return Refusal(503, "failed", "the model's thread has ended", retry_after=60)
        return None

    def variant(self, model: str | None) -> str:
        """The variant that a client means by a model's name: NAME, NAME:VARIANT, or nothing. Raises Refusal (404)."""
        name, _, variant = (model or self.name).partition(":")
        if name != self.name or variant not in self.engine.systems:
            there = ", ".join(self.names())
            raise Refusal(404, "model_not_found", f"no such model here; there is {there}", param="model")
        return variant

    def names(self) -> list[str]:
        """What clients may call the model."""
        return [f"{self.name}:{variant}" if variant else self.name for variant in self.engine.systems]

    def drain(self) -> None:
        """Takes no more work; what was taken is done."""
        if self.status != "failed":
            self.status = "draining"
        if self._engine is not None:
            self._engine.queue.close()

    def close(self, seconds: float = 10.0) -> bool:
        """Waits for what was taken. Whether all of it was done in time."""
        self.drain()
        done = self._engine.close(seconds) if self._engine is not None else True
        if self._library is not None:
            self._library.close()
        return done
