"""What is wrong with a file of settings: pydantic's errors as lines that a person can act on, with the nearest valid key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from twofold.nearest import nearest


def complaints(error: ValidationError, root: type[BaseModel], path: str, origins: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """One line for each thing wrong, beginning with the file or the override that said it."""
    for detail in error.errors():
        keys = tuple(str(part) for part in detail["loc"])
        key = ".".join(keys)
        said = [origin for at, origin in origins.items() if keys[: len(at)] == at]
        where = said[-1] if said else path
        if detail["type"] == "extra_forbidden":
            yield f"{where}: unknown key {key!r}; {_guess(root, keys)}"
        elif keys[-1] == "[key]":  # one of a few fixed keys, such as a prompt's
            yield f"{where}: unknown key {key.removesuffix('.[key]')!r}: {detail['msg']}"
        elif detail["type"] == "missing":
            yield f"{where}: {key!r} is missing: {_describe(root, keys)}"
        else:
            yield f"{where}: {key} = {detail['input']!r}: {detail['msg']}"


def _guess(root: type[BaseModel], keys: tuple[str, ...]) -> str:
    """The nearest valid key to an unknown one: the same word elsewhere, else a similar word in its table, else one anywhere."""
    *table, name = keys
    everywhere = list(_keys(root, ()))
    here = [each[-1] for each in everywhere if len(each) == len(keys) and all(a in ("*", b) for a, b in zip(each, table, strict=False))]
    names = [each[-1] for each in everywhere]
    near = name if name in names else nearest(name, here) or nearest(name, names)
    known = f"here is: {', '.join(here)}"
    if near is None:
        return known
    found = (*table, near) if near in here else everywhere[names.index(near)]
    return f"did you mean {'.'.join(found)!r}? ({known})"


def _keys(section: type[BaseModel], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every dotted key of a section; `*` stands for a name that the user chooses."""
    for name, field in section.model_fields.items():
        yield (*at, name)
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from _keys(each, (*at, name) if each is field.annotation else (*at, name, "*"))


def _describe(root: type[BaseModel], keys: tuple[str, ...]) -> str:
    """The description of a field."""
    model: Any = root
    for key in keys[:-1]:
        model = model.model_fields[key].annotation
    return str(model.model_fields[keys[-1]].description)
