"""Opening what is to be served: a saved model or a system of two, its variants, and an index beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twofold.errors import CheckpointError
from twofold.model.system import System
from twofold.search.index import Index, precision_for, read_settings
from twofold.search.reader import Reader
from twofold.serve.library import Library
from twofold.serve.service import Loaded
from twofold.tasks import kind_of, task_name, variant_of


@dataclass(frozen=True)
class Choice:
    """What the command line says."""

    model: str
    index: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    precision: str | None = None
    """None: the faster of fp32 and bf16 here, or half weights where the model was saved, or the index made, with them."""
    engine: str = "torch"


def opener(choice: Choice) -> Callable[[], Loaded]:
    """A function that loads it. It raises CheckpointError for a folder that is not right."""

    def load() -> Loaded:
        import torch

        from twofold.backbone.memory import keep_freed_memory
        from twofold.model.folder import load_system

        keep_freed_memory()
        if choice.threads is not None:
            torch.set_num_threads(choice.threads)
        made_with = {} if choice.index is None else read_settings(choice.index).identity
        precision = choice.precision or precision_for(made_with)
        system = load_system(choice.model, choice.device, precision=precision, engine=choice.engine)
        systems = systems_of(system)
        if choice.index is None:
            return Loaded(systems)
        variant = str(made_with.get("variant") or "")
        if variant not in systems:
            raise CheckpointError(f"{choice.index}: made for the variant {variant!r}, which this model does not have")
        return Loaded(systems, _library(choice.index, systems[variant]))

    return load


def systems_of(system: System) -> dict[str, System]:
    """The system itself under "", and one for each variant that both retrieves and reranks."""
    model = system.embedder
    variants = [variant_of(task) for task in model.tasks if kind_of(task) == "retrieve" and variant_of(task)]
    own = [name for name in variants if len(system.models) == 1 and task_name("rerank", name) in model.tasks]
    return {"": system, **{name: System.of(model, name) for name in own}}


def _library(folder: Path, system: System) -> Library:
    """The index, if this model made it. Raises CheckpointError."""
    index = Index.open(folder)
    reader = Reader.of(system)
    index.settings.check(reader.fingerprint, reader.identity, folder)
    return Library(index.store, system, index.settings.fusion)
