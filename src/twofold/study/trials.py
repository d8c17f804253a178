"""The folders of trained models. Studies share them, so that what two of them need is trained once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from twofold.study.locks import held


@dataclass(frozen=True)
class Trials:
    """The trials of all studies in one place, each a folder with its key as the name."""

    place: Path

    def folder(self, key: str) -> Path:
        """Where a trial lies."""
        return self.place / key

    def model(self, key: str) -> Path:
        """What is there once it is trained."""
        return self.folder(key) / "model"

    def lock(self, key: str) -> Path:
        """Held alone by whoever trains or removes a trial, and shared by those who use its model."""
        return self.place / f".{key}.lock"

    def stays(self, key: str, locks: ExitStack) -> bool:
        """Whether a trial's model is there; if so, it is until `locks` are let go of. Waits for whoever trains it."""
        with ExitStack() as own:
            own.enter_context(held(self.lock(key), wait=True, shared=True))
            if self.model(key).is_dir():
                locks.enter_context(own.pop_all())
                return True
        return False
