"""Makes Twofold's `model_type` known to transformers without importing transformers: that would cost seconds at every start.

The classes are registered when `import transformers` has run its first line of work, whoever asks for it and however: before
that nobody can ask transformers for a model.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

CLASSES = "twofold.model.hub"
"""The module that registers its classes when it is imported."""


def register() -> None:
    """Registers the classes now if transformers is loaded, else as soon as it is. Harmless when repeated."""
    if "transformers" in sys.modules:
        importlib.import_module(CLASSES)
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(importlib.abc.MetaPathFinder):
    """Finds nothing itself; what the others find for `transformers` is loaded by `_Loader`."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "transformers":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Loads a module as `loader` does, then registers."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)  # reading of package data, and whatever else the real loader offers

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader  # nothing of ours stays behind
        self._loader.exec_module(module)
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Watch)]
        importlib.import_module(CLASSES)
