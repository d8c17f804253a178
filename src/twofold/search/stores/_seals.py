"""The sha256 of every file of a folder whose files are written once and never changed: what a store without checksums lacks.

The ledger is a file of JSON lines. A line that is cut short is the last one and was never acknowledged. Files that are not in the ledger
are of a write that was not acknowledged either.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from twofold.errors import CheckpointError

log = logging.getLogger(__name__)
HASHED_UP_TO = 1_000_000_000
"""Bytes of a folder that is hashed whole whenever it is opened; of a larger one the sizes are compared, and the rest on demand."""


class Seal(NamedTuple):
    """What the ledger says of a file."""

    size: int
    sha256: str


class Ledger:
    """The seals of the files below `folder`, but for names that `changing` has."""

    def __init__(self, folder: Path, path: Path, changing: tuple[str, ...] = ()) -> None:
        """Raises CheckpointError for a ledger that was changed."""
        self.folder, self.path, self.changing = folder, path, changing
        self.seals: dict[str, Seal] = {}
        self.version = 0
        """The newest state that was acknowledged."""
        self.cleaning = False
        """Whether files were being removed when the last writer ended."""
        self.torn: int | None = None
        """Where the ledger's last whole line ends, if a crash cut the next one short."""
        self._read()

    def seal(self, version: int) -> None:
        """Forces all new files to the disk and notes them; then the state `version` is acknowledged."""
        new = {name: _sealed(self.folder / name) for name in self._files() if name not in self.seals}
        for place in {self.folder, *(path.parent for path in map(self.folder.joinpath, new))}:
            flush_folder(place)
        there = self.path.exists()
        self._mend()
        with self.path.open("ab") as file:
            file.writelines(_line(name, seal) for name, seal in new.items())
            file.write(_line("", Seal(version, "")))
            file.flush()
            os.fsync(file.fileno())
        if not there:
            flush_folder(self.path.parent)
        self.seals |= new
        self.version = version

    def clean(self) -> None:
        """Notes that files are about to be removed: until `rewrite`, one that is missing is no damage."""
        self._mend()
        with self.path.open("ab") as file:
            file.write(_line("cleaning", Seal(0, "")))
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, version: int) -> None:
        """Writes the ledger anew, of the files that are there."""
        there = list(self._files())
        self.seals = {name: self.seals.get(name) or _sealed(self.folder / name) for name in there}
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        with temporary.open("wb") as file:
            file.writelines(_line(name, seal) for name, seal in self.seals.items())
            file.write(_line("", Seal(version, "")))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        flush_folder(self.path.parent)
        self.version, self.cleaning = version, False

    def verify(self, everything: bool = False) -> None:
        """Compares what was sealed with what is there. Raises CheckpointError naming the first file that is not as it was written.

        A writer may be removing files meanwhile, so one that is missing is looked up again in the ledger as it then is.
        """
        hashing = everything or sum(seal.size for seal in self.seals.values()) <= HASHED_UP_TO
        for name, seal in list(self.seals.items()):
            path = self.folder / name
            try:
                size = path.stat().st_size
                found = _sealed(path, flush=False) if hashing and size == seal.size else Seal(size, seal.sha256)
            except FileNotFoundError:
                if self._may_be_gone(name):
                    continue
                raise CheckpointError(f"{path}: missing, and part of the index; index again into a new folder") from None
            if found != seal:
                what = (
                    f"{size} bytes, {seal.size} were written" if size != seal.size else "its sha256 is not the one that it was written with"
                )
                raise CheckpointError(f"{path}: changed since it was written ({what}); index again into a new folder")

    def _mend(self) -> None:
        """Takes away what a crash left of a line, so that the next one begins a line of its own."""
        if self.torn is not None:
            os.truncate(self.path, self.torn)
            self.torn = None

    def _may_be_gone(self, name: str) -> bool:
        now = Ledger(self.folder, self.path, self.changing)
        return now.cleaning or name not in now.seals

    def _files(self) -> Iterator[str]:
        for at, _, files in os.walk(self.folder):
            for name in files:
                if name not in self.changing and not name.startswith("."):
                    yield Path(at, name).relative_to(self.folder).as_posix()

    def _read(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                name, size, sha256, check = json.loads(line)
                if check != _check(name, size, sha256):
                    raise ValueError
            except (ValueError, TypeError):
                if number == len(lines) and not line.endswith(b"\n"):
                    log.warning("%s:%d: cut short by a crash; what it was about had not been acknowledged", self.path, number)
                    self.torn = len(content) - len(line)
                    return
                raise CheckpointError(f"{self.path}:{number}: changed since it was written; index again into a new folder") from None
            if name == "":
                self.version = size
            elif name == "cleaning":
                self.cleaning = True
            else:
                self.seals[name] = Seal(size, sha256)


def _sealed(path: Path, flush: bool = True) -> Seal:
    """Size and sha256 of a file; with `flush`, it is on the disk before anybody says so."""
    if flush:
        flush_file(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Seal(file.tell(), digest)


def _line(name: str, seal: Seal) -> bytes:
    return (json.dumps([name, seal.size, seal.sha256, _check(name, *seal)]) + "\n").encode()


def _check(name: str, size: int, sha256: str) -> str:
    """A line's own checksum."""
    return hashlib.sha256(f"{name}\n{size}\n{sha256}".encode()).hexdigest()[:16]


def flush_file(path: Path) -> None:
    """Forces a file's content to the disk."""
    with path.open("r+b" if os.name == "nt" else "rb") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Forces a folder's list of names to the disk; Windows opens no folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
