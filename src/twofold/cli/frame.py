"""What all commands share: the application, the two consoles, the options that mean the same everywhere, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from twofold.errors import TrainingStopped, TwofoldError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
out, err = Console(soft_wrap=True), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Sets = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Change a setting of the config; may be repeated.")]


def main() -> None:
    """The entry point: errors that a person can act on are one line and exit code 2 (1 for training that stopped)."""
    try:
        app()
    except TwofoldError as error:
        err.print(f"twofold: {error}", style="red", markup=False)
        sys.exit(1 if isinstance(error, TrainingStopped) else 2)


def bar() -> Progress:
    """A progress bar on the error stream, so that results can be piped."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=err, transient=True)


def shown(progress: Progress) -> Callable[[str, int, int], None]:
    """What a function calls with (what, done, total), as rows of a progress bar."""
    rows: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in rows:
            rows[what] = progress.add_task(what, total=total, note="")
        progress.update(rows[what], completed=done)

    return show
