"""Twofold: one transformer that retrieves and reranks.

    model = twofold.load("path/to/model")
    vectors = model.encode(["a text", "another"])
    best = model.rank("a query", ["a document", "another"])

Importing this package makes the saved folder's `model_type` known to transformers, so that `SentenceTransformer(path)`,
`CrossEncoder(path)` and `AutoModel.from_pretrained(path)` open it. Nothing else happens on import.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from twofold.model.register import register

if TYPE_CHECKING:
    from twofold.model.system import System
    from twofold.model.unified import UnifiedModel

__all__ = ["load", "load_system", "locate"]


def load(
    path: str | Path,
    device: str = "cpu",
    *,
    backbone: str | None = None,
    precision: str | None = None,
    plugins: Collection[str] = (),
    engine: str = "torch",
) -> UnifiedModel:
    """The model of a saved folder or a hub id, whole and unchanged, or an error that says what is wrong with it.

    `backbone`: where its backbone is, if not where it was (it must be the same one); `precision`: instead of the saved one, or "auto"
    for the faster of fp32 and bf16 on this machine (a trial of milliseconds); `plugins`: dotted names of banks, routers and tasks of
    your own that the folder may import; `engine`: what runs a single short query on a CPU, "torch", "openvino" (a compiled graph, which
    holds the weights once more), or "auto" for the faster here. Raises CheckpointError, and ConfigError for what is not installed.
    """
    from twofold.model.folder import load

    return load(path, device, backbone=backbone, precision=precision, plugins=plugins, engine=engine)


def load_system(
    path: str | Path, device: str = "cpu", *, precision: str | None = None, plugins: Collection[str] = (), engine: str = "torch"
) -> System:
    """What a saved folder retrieves and reranks with: its one model on both sides, or its two. See `load`."""
    from twofold.model.folder import load_system

    return load_system(path, device, precision=precision, plugins=plugins, engine=engine)


def locate(path: str | Path) -> Path:
    """The folder of a saved model: a path, "builtin", or a hub id's snapshot, for libraries that take a folder. Raises CheckpointError."""
    from twofold.model.folder import locate

    return locate(path)


register()
