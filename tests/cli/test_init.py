"""The application has every command of its files."""

from __future__ import annotations

from twofold.cli import app


def test_every_group_is_there() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert {"train", "check", "demo", "evaluate", "compare", "encode", "rank", "classify", "methods", "routers", "doctor"} <= names
