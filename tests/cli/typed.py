"""Typing a command."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from twofold.cli import app


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
