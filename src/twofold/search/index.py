"""An index: a folder with a store, and a file that says by which model and how it was made.

index.json      the model's fingerprint, how documents were cut, which store; with a sha256 of itself
.lock           held by the process that writes
…               the store's own files
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from twofold import plugins
from twofold.cache import write_text
from twofold.errors import CheckpointError, ConfigError
from twofold.search.passages import Cut
from twofold.search.pipeline import Pipeline
from twofold.search.reader import Reader
from twofold.search.stores import Store
from twofold.search.stores._seals import flush_file, flush_folder

FILE, LOCK, FORMAT = "index.json", ".lock", 1
DEFAULT_STORE = "lancedb"
FAMILY = "search/stores"
AUTO, HALF = "auto", "bf16-weights"


@dataclass(frozen=True)
class Settings:
    """What an index is, whatever is in it."""

    model: str
    """The folder, name or hub id of the model that made it: where to look for it again."""
    fingerprint: str
    identity: Mapping[str, Any]
    """As `Reader.identity`."""
    width: int
    size: int
    overlap: int
    """As `Cut`."""
    store: str = DEFAULT_STORE
    options: Mapping[str, Any] = field(default_factory=dict)
    """The store's own."""
    fusion: float | None = None
    """As for `Pipeline`."""

    @classmethod
    def of(cls, model: str, reader: Reader, how: Cut, store: str = DEFAULT_STORE, options: Mapping[str, Any] | None = None) -> Settings:
        """Those of a new index."""
        return cls(model, reader.fingerprint, reader.identity, reader.width, how.size, how.overlap, store, options or {})

    @property
    def cut(self) -> Cut:
        """How documents were, and will be, cut."""
        return Cut(self.size, self.overlap)

    def check(self, fingerprint: str, identity: Mapping[str, Any], where: Path) -> None:
        """Raises CheckpointError, saying how to rebuild, where another model made the index."""
        if fingerprint == self.fingerprint:
            return
        differ = [
            f"{key} {self.identity.get(key)!r}, now {identity.get(key)!r}" for key in identity if identity[key] != self.identity.get(key)
        ]
        why = f"{'; '.join(differ) or 'the same backbone, other weights'}: {self.fingerprint[:12]}… is not {fingerprint[:12]}…"
        raise CheckpointError(
            f"{where}: made by another model ({why}). Search it with the model that made it ({self.model}), or index the documents "
            f"again into a new folder: twofold index DOCUMENTS --to NEW --model MODEL"
        )


class Index:
    """An open index. Close it, or use it as a context."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.store: Store = plugins.build_plugin(FAMILY, settings.store, settings.options, folder=folder, width=settings.width)

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """The index in a folder. Raises CheckpointError where there is none or it is damaged."""
        return cls(Path(folder), read_settings(Path(folder)))

    @classmethod
    def make(cls, folder: str | Path, settings: Settings) -> Index:
        """A new, empty index; what it is stands on the disk before anything is in it. Raises CheckpointError if one is there."""
        folder = Path(folder)
        if (folder / FILE).exists() or (folder.is_dir() and any(each.name != LOCK for each in folder.iterdir())):
            raise CheckpointError(f"{folder}: is there already and not empty; choose another folder")
        plugins.load(FAMILY, settings.store)
        write_text(folder / FILE, _encoded(settings))
        flush_file(folder / FILE)
        flush_folder(folder)
        return cls(folder, settings)

    def pipeline(self, reader: Reader, fusion: float | None = None, rerank_weight: float | None = None) -> Pipeline:
        """Search with this model. `fusion`, `rerank_weight`: in the place of the index's and the model's own.

        Raises CheckpointError for a model that did not make the index.
        """
        self.settings.check(reader.fingerprint, reader.identity, self.folder)
        callables = reader.callables if rerank_weight is None else replace(reader.callables, rerank_weight=rerank_weight)
        return Pipeline(self.store, callables, fusion=self.settings.fusion if fusion is None else fusion)

    def facts(self) -> dict[str, Any]:
        """JSON types: the settings and the store's facts."""
        return {**asdict(self.settings), "store": self.store.facts()}

    def close(self) -> None:
        """Closes the store."""
        self.store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_or_make(
    folder: str | Path,
    model: str | None = None,
    *,
    size: int | None = None,
    overlap: int | None = None,
    store: str | None = None,
    options: Mapping[str, Any] | None = None,
    precision: str | None = None,
    variant: str = "",
) -> tuple[Index, Reader]:
    """The index in a folder and its model loaded, or a new index made with this one (`builtin` unless said).

    Raises CheckpointError for an index of another model, ConfigError for settings that an existing index was not made with.
    """
    folder = Path(folder)
    if (folder / FILE).exists():
        settings = read_settings(folder)
        asked = {"size": size, "overlap": overlap, "store": store, "options": options or None}
        for name, value in asked.items():
            if value is not None and value != getattr(settings, name):
                raise ConfigError(
                    f"{folder}: made with {name} {getattr(settings, name)!r}, not {value!r}; index into a new folder for that"
                )
        reader = load_reader(settings, model, precision, variant)
        settings.check(reader.fingerprint, reader.identity, folder)
        return Index(folder, settings), reader
    reader = Reader.load(model or "builtin", precision or AUTO, variant)
    how = Cut.of(reader.room, size, overlap)
    return Index.make(folder, Settings.of(named(model or "builtin"), reader, how, store or DEFAULT_STORE, options)), reader


def named(model: str) -> str:
    """How a model is found again from anywhere: a folder by its whole path."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def load_reader(settings: Settings, model: str | None = None, precision: str | None = None, variant: str | None = None) -> Reader:
    """The model of an index, from where it was, or from where it is now; in the variant that the index was made with.

    Without `precision`, the faster of fp32 and bf16 here (their weights are the same, and so are the vectors but for rounding), or bf16
    weights where the index was made with those.
    """
    identity = settings.identity
    return Reader.load(model or settings.model, precision or precision_for(identity), variant or identity.get("variant") or "")


def precision_for(identity: Mapping[str, Any]) -> str:
    """In which precision an index's model reads, unless one is asked for: half weights where it was made with them, else the faster."""
    return HALF if identity.get("precision") == HALF else AUTO


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keeps other writers out, also those of other processes; a process that dies lets go. Raises ConfigError where another writes."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        raise ConfigError(
            f"{folder}: another process is writing to this index; wait until it is done (searching goes on meanwhile)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def read_settings(folder: Path) -> Settings:
    """What index.json says. Raises CheckpointError where there is none, or where it is not as it was written."""
    path = folder / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        version = body["format"]
        if version != FORMAT:
            raise CheckpointError(
                f"{path}: format {version!r}, and this version of Twofold reads format {FORMAT}; index again into a new folder"
            )
        settings = Settings(**body["settings"])
        if json.loads(_encoded(settings)) != body:
            raise ValueError("its sha256 is not the one that it was written with")
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no index; make one with: twofold index DOCUMENTS --to {folder}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cut short or changed: {error}; index again into a new folder") from error
    return settings


def _encoded(settings: Settings) -> str:
    body: dict[str, Any] = {"format": FORMAT, "settings": asdict(settings)}
    body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps(body, sort_keys=True, indent=1) + "\n"
