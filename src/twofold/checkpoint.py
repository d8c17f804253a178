"""Folders that are whole or not there: atomic writing, a manifest with the sha256 of every file, generations to fall back on.

Knows nothing of models. A folder is written beside its place, forced to disk, listed in `manifest.json` and then renamed, so a
crash at any moment leaves the old folder or the new one. safetensors has no checksum of its own, hence the manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from twofold.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT = 1
logger = logging.getLogger(__name__)

Writer = Callable[[Path], None]
"""Writes the files of a folder into the (empty, temporary) folder that it is given."""


class FileEntry(NamedTuple):
    """What a manifest says of one file."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The files of a folder by their relative path, with `/` between its parts."""

    files: Mapping[str, FileEntry]

    def encode(self) -> bytes:
        """The one spelling of this manifest. It carries its own sha256, so that a changed byte in it is seen too."""
        files = {name: {"bytes": entry.size, "sha256": entry.sha256} for name, entry in sorted(self.files.items())}
        body: dict[str, Any] = {"files": files, "format": FORMAT}
        body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return (json.dumps(body, sort_keys=True, indent=1) + "\n").encode()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder. Raises CheckpointError if it is missing, cut short, changed, or of another format."""
        path = folder / MANIFEST
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{path}: {error.strerror}; a complete folder has one, so this one is torn or was not written by us"
            ) from error
        try:
            body = json.loads(content)
            version = body["format"]
            manifest = cls({str(name): FileEntry(entry["bytes"], entry["sha256"]) for name, entry in body["files"].items()})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path}: cut short or changed: {type(error).__name__}: {error}") from error
        if version != FORMAT:
            raise CheckpointError(f"{path}: format {version!r}, and this version of Twofold reads format {FORMAT}")
        if manifest.encode() != content:
            raise CheckpointError(f"{path}: changed since it was written")
        for name in manifest.files:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or name == MANIFEST:
                raise CheckpointError(f"{path}: {name!r} is no file of this folder")
        return manifest


def write_folder(target: Path, writer: Writer, *, overwrite: bool = False) -> Manifest:
    """Make the folder `target` with what `writer` writes: all of it, on disk, with its manifest, or nothing.

    Raises CheckpointError if `target` is there already and not to be overwritten, if the writer writes nothing, a link or a
    manifest of its own, and for every error of the disk, naming the file; what stood at `target` is then untouched (unless the
    last step failed, which forces the parent's list of names to the disk: then the new folder stands).
    """
    target = Path(target)
    if target.exists() and not (target.is_dir() and (overwrite or not any(target.iterdir()))):
        raise CheckpointError(f"{target}: is there already; choose another folder or ask to overwrite it")
    token = f"{os.getpid()}-{os.urandom(4).hex()}"
    temporary = target.with_name(f".{target.name}.{token}.tmp")
    replaced = target.with_name(f".{target.name}.{token}.old.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        writer(temporary)
        manifest = _seal(temporary)
        _move_into_place(temporary, target, replaced)
        _flush(target.parent)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(temporary.name, target.name)) from error
    except OSError as error:
        name = str(error.filename or temporary).replace(temporary.name, target.name)
        raise CheckpointError(f"{name}: could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    return manifest


def verify(folder: Path, *, extras: Collection[str] = ()) -> Manifest:
    """The manifest of a folder whose every file is there, unchanged, and listed.

    `extras` are names that may lie beside them (a hub adds `.gitattributes`). Raises CheckpointError naming the first file that
    is missing, has another size or content, or is not listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    manifest = Manifest.read(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing")
        try:
            found = _entry(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        if found.size != expected.size:
            raise CheckpointError(f"{path}: {found.size} bytes, and the manifest says {expected.size}")
        if found != expected:
            raise CheckpointError(f"{path}: changed since it was written (its sha256 is not the manifest's)")
    for name in _listing(folder, links=True):
        if name not in manifest.files and name != MANIFEST and name not in extras:
            raise CheckpointError(f"{folder / name}: not in the manifest; remove it if it is not meant to be there")
    return manifest


class Generation(NamedTuple):
    """One complete checkpoint."""

    step: int
    folder: Path


class Generations:
    """The checkpoints of one trial: folders `step-000000025`, of which the newest `keep` complete ones are kept."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}; at least one generation is kept")
        self.folder, self.keep = Path(folder), keep
        self._whole: set[Path] = set()  # written or verified by this object: not read again to prune

    def save(self, step: int, writer: Writer) -> Generation:
        """Write a generation, then remove those of later steps (a future that was given up) and all but `keep` complete ones.

        A torn one goes when enough complete ones are newer. Raises as `write_folder` does; the older ones are then as they were.
        """
        target = self.folder / f"step-{step:09d}"
        write_folder(target, writer, overwrite=True)
        self._whole.add(target)
        kept = 0
        for generation in self._newest_first():
            if generation.step > step or kept == self.keep:
                shutil.rmtree(generation.folder, ignore_errors=True)
                self._whole.discard(generation.folder)
            elif self._complaint(generation.folder) is None:
                kept += 1
        for leftover in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        return Generation(step, target)

    def latest(self) -> Generation | None:
        """The newest complete generation, None if there never was one. What is passed over is logged as a warning.

        Raises CheckpointError if there are generations and none is complete.
        """
        complaints: list[str] = []
        for generation in self._newest_first():
            complaint = self._complaint(generation.folder, trust=False)
            if complaint is None:
                if complaints:
                    logger.warning("going back to step %d: %s", generation.step, "; ".join(complaints))
                return generation
            complaints.append(complaint)
        if complaints:
            raise CheckpointError(f"{self.folder}: no complete checkpoint: {'; '.join(complaints)}")
        return None

    def _newest_first(self) -> list[Generation]:
        """Every generation on disk, complete or not."""
        found = [(re.fullmatch(r"step-(\d{9,})", path.name), path) for path in self.folder.glob("step-*")]
        return sorted((Generation(int(match[1]), path) for match, path in found if match), reverse=True)

    def _complaint(self, folder: Path, *, trust: bool = True) -> str | None:
        """What is wrong with a generation; with `trust`, one that this object has seen whole is not read again."""
        if trust and folder in self._whole:
            return None
        try:
            verify(folder)
        except CheckpointError as error:
            self._whole.discard(folder)
            return str(error)
        self._whole.add(folder)
        return None


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors. Raises CheckpointError for a value that is not finite (naming the tensor) and a full disk."""
    _refuse_not_finite(path, tensors)
    try:
        save_file({name: _alone(tensor) for name, tensor in tensors.items()}, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path}: could not be written: {' '.join(str(error).split())}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError if it cannot be read or a value is not finite."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    _refuse_not_finite(path, tensors)
    return tensors


def fingerprint(parts: Mapping[str, str]) -> str:
    """sha256 (hex) of named parts, in whatever order: what an index or a cache compares to know its model again."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def _refuse_not_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: tensor {name!r} has values that are not finite")


def _alone(tensor: Tensor) -> Tensor:
    """The tensor on the CPU in memory of its own: safetensors refuses a part of a larger one."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _seal(folder: Path) -> Manifest:
    """Write the manifest of a folder and force everything in it to the disk."""
    manifest = Manifest({name: _entry(folder / name) for name in _listing(folder)})
    if not manifest.files or MANIFEST in manifest.files:
        raise CheckpointError(f"{folder}: the writer wrote {'a manifest of its own' if manifest.files else 'nothing'}")
    (folder / MANIFEST).write_bytes(manifest.encode())
    for path in (*folder.rglob("*"), folder):
        _flush(path)
    return manifest


def _listing(folder: Path, *, links: bool = False) -> list[str]:
    """Relative paths of all files below a folder, sorted. A link is followed by the reader and refused to the writer."""
    names = []
    for path in folder.rglob("*"):
        if path.is_symlink() and not links:
            raise CheckpointError(f"{path}: is a link; write files")
        if path.is_symlink() or not path.is_dir():
            names.append(path.relative_to(folder).as_posix())
    return sorted(names)


def _entry(path: Path) -> FileEntry:
    """Size and sha256 of a file on disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileEntry(path.stat().st_size, digest.hexdigest())


def _flush(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders, and flushes only what may be written
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def _move_into_place(temporary: Path, target: Path, replaced: Path) -> None:
    """Rename the new folder to its name. What stood there is set aside first and comes back if that fails."""
    if target.exists():
        target.rename(replaced)
    try:
        temporary.rename(target)
    except BaseException:
        if replaced.exists():
            replaced.rename(target)
        raise
