"""Files, assignments from the command line, and writing what the standard library reads back."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twofold.errors import ConfigError
from twofold.toml import assign, dump, parse_assignment, read

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXT)
TABLES = st.dictionaries(TEXT, st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXT, inner)), max_leaves=6))


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ("optim.lr=1e-3", ("optim", "lr"), 1e-3),
        ("optim.steps = 50", ("optim", "steps"), 50),
        ("backbone.gradient_checkpointing=true", ("backbone", "gradient_checkpointing"), True),
        ('data.train=["scifact", "squad"]', ("data", "train"), ["scifact", "squad"]),
        ("backbone.name=hub:owner/model-v1.5", ("backbone", "name"), "hub:owner/model-v1.5"),
        ("backbone.name='12'", ("backbone", "name"), "12"),
        ('backbone.prompts.query="query: "', ("backbone", "prompts", "query"), "query: "),
        ('tasks."acme.classify".batch=8', ("tasks", "acme.classify", "batch"), 8),
        ("name=a=b", ("name",), "a=b"),
        ('name=""', ("name",), ""),
        ("method.options.map={a = 1}", ("method", "options", "map"), {"a": 1}),
        ("name=a\nseed=1", ("name",), "a\nseed=1"),
        ("name=1\nseed=1", ("name",), "1\nseed=1"),
    ],
)
def test_assignments(text: str, keys: tuple[str, ...], value: Any) -> None:
    assert parse_assignment(text) == (keys, value)


@pytest.mark.parametrize(
    "text", ["optim.lr", "optim.lr=", "optim.lr= ", "=1", "a b=1", "a..b=1", "[a]\nb=1", 'data.train=["x"', "name='x", "a=[x]"]
)
def test_bad_assignments_quote_what_was_written(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_assignment(text)
    assert str(caught.value).startswith(repr(text))


def test_assign_makes_tables_on_the_way() -> None:
    table: dict[str, Any] = {"a": {"x": 1}}
    assign(table, ("a", "b", "c"), 2)
    assign(table, ("d",), 3)
    assert table == {"a": {"x": 1, "b": {"c": 2}}, "d": 3}


def test_assign_does_not_write_through_a_value() -> None:
    with pytest.raises(ConfigError, match=r"a\.x\.y: a\.x is 1, not a table"):
        assign({"a": {"x": 1}}, ("a", "x", "y"), 2)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(TABLES)
def test_what_is_written_reads_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(dump(table)) == table


def test_none_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match="a.b is None"):
        dump({"a": {"b": None}})
    with pytest.raises(ConfigError, match="holds None"):
        dump({"a": [None]})


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    good, bad, missing = (tmp_path / name for name in ("good.toml", "bad.toml", "missing.toml"))
    good.write_text("a = { b = 1 }\n")
    bad.write_bytes(b"a = \xff")
    assert read(good) == {"a": {"b": 1}}
    for path, words in ((bad, "no valid TOML"), (missing, "No such file")):
        with pytest.raises(ConfigError, match=f"{path.name}: {words}"):
            read(path)
