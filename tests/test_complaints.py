"""Complaints about settings: one line each, with where it was said and the nearest valid key. More in test_config.py, over real files."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from twofold.complaints import complaints


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    depth: int = Field(1, ge=0)
    """How deep."""


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    """Who it is."""
    inner: Inner = Inner()
    parts: dict[str, Inner] = {}


def lines(values: object, origins: dict[tuple[str, ...], str] | None = None) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return list(complaints(caught.value, Outer, "a.toml", origins or {}))


def test_a_missing_setting_is_described() -> None:
    assert lines({}) == ["a.toml: 'name' is missing: Who it is."]


def test_the_nearest_key_is_guessed_in_its_table_and_elsewhere() -> None:
    assert lines({"name": "x", "inner": {"dept": 1}}) == ["a.toml: unknown key 'inner.dept'; did you mean 'inner.depth'? (here is: depth)"]
    assert lines({"name": "x", "depth": 1})[0].startswith("a.toml: unknown key 'depth'; did you mean 'inner.depth'?")
    assert lines({"name": "x", "parts": {"a": {"dept": 1}}})[0].startswith(
        "a.toml: unknown key 'parts.a.dept'; did you mean 'parts.a.depth'?"
    )


def test_an_override_is_named_by_what_was_typed() -> None:
    found = lines({"name": "x", "inner": {"depth": -1}}, {("inner", "depth"): "--set inner.depth=-1"})
    assert found == ["--set inner.depth=-1: inner.depth = -1: Input should be greater than or equal to 0"]
