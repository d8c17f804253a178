"""The folders of trained models. Studies share them, so that what two of them need is trained once.

trials/studies/.KEY.lock                    held by whoever trains, uses or removes it
trials/studies/KEY/                         a trial; see train/trial.py
trials/studies/KEY/.model-kept-by-STUDY     this study needs the model
trials/studies/KEY/.members-kept-by-STUDY   and the checkpoints beside it
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from twofold.study.locks import held


@dataclass(frozen=True)
class Trials:
    """The trials of all studies in one place, each a folder with its key as the name, and what one study keeps of them."""

    place: Path
    study: str
    """Its name."""
    checkpoints: bool
    """Whether it needs those of a trial as long as its model."""

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
        """Whether a trial's model is there; if so, it is until `locks` are let go of, and kept. Waits for whoever trains it."""
        with ExitStack() as own:
            own.enter_context(held(self.lock(key), wait=True, shared=True))
            if self.model(key).is_dir():
                self.keep(key)
                locks.enter_context(own.pop_all())
                return True
        return False

    def keep(self, key: str) -> None:
        """Notes that the study needs a trial, whatever becomes of this process. The caller holds its lock."""
        self.folder(key).mkdir(parents=True, exist_ok=True)
        self._note(key, "model").touch()
        if self.checkpoints:
            self._note(key, "members").touch()
        else:
            self._note(key, "members").unlink(missing_ok=True)

    def tidy(self, key: str, needed: bool) -> None:
        """Removes of a trained trial what no study needs: its checkpoints, or all of it. What somebody uses is left to a later time."""
        if not needed:
            for part in ("model", "members"):
                self._note(key, part).unlink(missing_ok=True)
        with held(self.lock(key)) as alone:
            if not alone or not self.model(key).is_dir():
                return
            if needed:
                self.keep(key)
            if not self._kept(key, "members"):
                shutil.rmtree(self.folder(key) / "members", ignore_errors=True)
            if not self._kept(key, "model"):
                shutil.rmtree(self.folder(key))

    def _note(self, key: str, part: str) -> Path:
        return self.folder(key) / f".{part}-kept-by-{self.study}"

    def _kept(self, key: str, part: str) -> bool:
        """Whether any study needs this part."""
        return any(self.folder(key).glob(f".{part}-kept-by-*"))
