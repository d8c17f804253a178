"""Plug-ins: the folder is the list, the file's name is the plug-in's name, a dotted name is anybody's module.

A family is a package of Twofold that holds one plug-in per file: `banks`, `routers`, `tasks`, `methods`, `probes`, …
Every plug-in module offers `build(...)`, and a probe `run(...)`; the keyword arguments that the program does not give are its options.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from twofold.errors import ConfigError
from twofold.nearest import unknown

ROOT = Path(__file__).parent
NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def names(family: str) -> list[str]:
    """The plug-ins of a family (`routers`, `search/stores`), sorted: every file of its folder that does not start with `_`.

    Raises ConfigError where there is no such folder.
    """
    folder = ROOT / family
    if not folder.is_dir():
        raise ConfigError(unknown("plug-in family", family, (path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file())))
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load(family: str, name: str) -> ModuleType:
    """The module of one plug-in. A dotted name (`my_package.my_router`) imports that module from the Python path.

    Raises ConfigError for a name that is not in the family's folder, naming the nearest and all, and for a dotted name that
    does not exist. An import that fails inside an existing module raises as it is.
    """
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        return _load_dotted(family, name)
    if name not in (known := names(family)):
        raise ConfigError(f"{unknown(f'name in {family}', name, known)} (or the dotted name of a module of your own)")
    return importlib.import_module(f"twofold.{family.replace('/', '.')}.{name}")


def describe(family: str) -> list[tuple[str, str]]:
    """Name and first docstring line of every plug-in of a family, read without importing it: optional packages may be missing."""
    rows = []
    for name in names(family):
        docstring = ast.get_docstring(ast.parse((ROOT / family / f"{name}.py").read_text(encoding="utf-8"))) or ""
        rows.append((name, docstring.split("\n", 1)[0]))
    return rows


def build_plugin(family: str, name: str, chosen: Mapping[str, Any], /, **given: Any) -> Any:
    """Call a plug-in's `build`; see `call_plugin`."""
    return call_plugin(family, name, "build", chosen, **given)


def call_plugin(family: str, name: str, offer: str, chosen: Mapping[str, Any], /, **given: Any) -> Any:
    """Call what a plug-in offers (its function `build`, or `run`) with the user's options and with what the program gives.

    `chosen` are the user's options: names and types are checked against the signature. Of `given`, a plug-in receives what its
    signature names (everything, if it takes `**kwargs`). Raises ConfigError for an option that does not exist (naming the
    nearest), that the program sets itself, that has the wrong type, or that is missing.
    """
    module = load(family, name)
    where = f"{family} {name!r}"
    function = getattr(module, offer, None)
    if not callable(function):
        raise ConfigError(f"{family} {module.__name__!r}: {module.__file__} offers no {offer}(...)")
    parameters = dict(inspect.signature(function).parameters)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in chosen:
        if key in given:
            raise ConfigError(f"{where}: {key!r} is set by the program and is not an option")
    free = {key: parameter for key, parameter in parameters.items() if key not in given and parameter.kind in NAMED}
    for key in chosen:
        if key not in free and not takes_any:
            raise ConfigError(f"{where}: {unknown('option', key, free)}")
    for key, parameter in free.items():
        if parameter.default is inspect.Parameter.empty and key not in chosen:
            raise ConfigError(f"{where}: the option {key!r} has no default; say what it is")
    checked = _check_types(where, function, chosen)
    return function(**{key: value for key, value in given.items() if key in parameters or takes_any}, **checked)


def _load_dotted(family: str, name: str) -> ModuleType:
    """Import somebody's module by its full name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # the module is there, and something that it imports is not
        raise ConfigError(f"{family} {name!r}: there is no module {error.name!r} on the Python path") from error


def _check_types(where: str, function: Any, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The options as their annotations want them: a list becomes a tuple and an integer a float, but "8" is no number."""
    try:
        hints = get_type_hints(function)
    except NameError:  # an annotation that exists for the type checker only: the types cannot be known here
        return dict(chosen)
    checked = {}
    for key, value in chosen.items():
        # Wrapped in a tuple, since a bare model or dataclass refuses to be given a config.
        wrapped: Any = GenericAlias(tuple, hints.get(key, Any))
        adapter: TypeAdapter[Any] = TypeAdapter(wrapped, config=ConfigDict(arbitrary_types_allowed=True))
        try:
            checked[key] = adapter.validate_json(json.dumps([value]), strict=True)[0]
        except (TypeError, ValidationError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise ConfigError(f"{where}: option {key} = {value!r}: {reason}") from error
    return checked
