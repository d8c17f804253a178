"""TOML beyond the standard library's reader: files with errors that name them, one assignment from the command line, and writing."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twofold.errors import ConfigError


def read(path: Path) -> dict[str, Any]:
    """The table in a file. Raises ConfigError, naming the file, where it is missing or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {error}") from error


def parse_assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """`a.b=c` → (("a", "b"), value). The value is TOML; a bare word, such as a name or a path, is a string.

    Raises ConfigError for what has no key, no value, or a value that begins like TOML (with a bracket or quote) and is none.
    """
    key, equals, value = text.partition("=")
    if not equals or not value.strip():
        raise ConfigError(f'{text!r}: write it as a.b=value (an empty text is "")')
    try:
        node: Any = tomllib.loads(f"{key} = 0".replace("\n", "\0"))  # one key; a line break would make it several
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{text!r}: {key!r} is no dotted key") from error
    keys: list[str] = []
    while isinstance(node, dict):
        ((name, node),) = node.items()
        keys.append(name)
    try:
        document = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError as error:
        if value.lstrip()[0] in "[{\"'":
            raise ConfigError(f"{text!r}: {value.strip()} is no valid TOML: {error}") from error
        return tuple(keys), value.strip()
    return tuple(keys), document["value"] if document.keys() == {"value"} else value.strip()


def assign(table: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    """Put a value at a dotted key of a table, in place, making the tables on the way. Raises ConfigError where one is a value."""
    for depth, key in enumerate(keys[:-1]):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{'.'.join(keys)}: {'.'.join(keys[: depth + 1])} is {table!r}, not a table")
    table[keys[-1]] = value


def dump(table: Mapping[str, Any]) -> str:
    """A table of strings, numbers, truth values, lists and tables as TOML. Raises ConfigError for None, which TOML cannot say."""
    return "\n".join(_lines((), table)).lstrip("\n") + "\n"


def _lines(at: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one table: its values first, then its tables."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if at and (values or not table):
        yield f"\n[{'.'.join(_key(key) for key in at)}]"
    for key, value in values.items():
        if value is None:
            raise ConfigError(f"{'.'.join((*at, key))} is None, which TOML cannot say; leave it out")
        yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _lines((*at, key), value)


def _key(key: str) -> str:
    """A key, quoted where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    """A value on one line. JSON's strings, numbers and lists are TOML's too, except for the sign DEL; its null and tables are not."""
    if value is None:
        raise ConfigError("a list holds None, which TOML cannot say; leave it out")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
