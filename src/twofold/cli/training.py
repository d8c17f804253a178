"""Commands that train: `train`, `check`, `demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from twofold.cli.frame import Json, Sets, app, bar, err, out, shown


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="CONFIG|DATA", help="A TOML file (see configs/), or a dataset: settings are made for it.")],
    sets: Sets = [],  # noqa: B006 (typer reads the default)
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished trial, bit for bit.")] = False,
    to: Annotated[Path, typer.Option("--to", help="The folder that holds the trial's own folder.")] = Path("trials"),
    start: Annotated[str | None, typer.Option("--from", metavar="MODEL", help="Begin from a trained model, such as builtin.")] = None,
    add: Annotated[
        list[str], typer.Option("--add", metavar="NAME", help="With --from: a further expert, such as classify or domain:legal.")
    ] = [],  # noqa: B006 (typer reads the default)
    as_json: Json = False,
) -> None:
    """Train a model on both tasks, or a trained one further. The data is checked first.

    Example: `twofold train configs/scifact/moe_lora.toml --set optim.steps=50 --set seed=1`

    Example: `twofold train my-data --set optim.steps=50` (pairs, documents, a BEIR folder: what `twofold check` takes)

    Example: `twofold train banking77 --from builtin --add classify` (older vectors and scores stay as they are, bit for bit)

    Example: `twofold train my-data --from builtin --add domain:legal` (or without --add: all that it has goes on learning)
    """
    from twofold.errors import ConfigError
    from twofold.train.defaults import start_of
    from twofold.train.onward import Onward
    from twofold.train.trial import run_trial

    def say(line: str) -> None:
        err.print(line, style="dim", markup=False, highlight=False)

    if add and start is None:
        raise ConfigError("--add gives a trained model a further expert: say which model, --from MODEL")
    begin = start_of(what, sets, to, resume, say, Onward(start, tuple(add)) if start else None)
    settings, folder = begin.config, to / begin.config.name
    done = (folder / "model").is_dir()
    with bar() as progress:
        rows: dict[str, Any] = {}

        def show(member: str, now: Any) -> None:
            if member not in rows:
                rows[member] = progress.add_task(member, total=now.steps, note="")
            loss = "  ".join(f"{task} {value:.3f}" for task, value in now.report.loss.items())
            progress.update(rows[member], completed=now.step, note=f"{loss}  {now.tokens_per_second:,.0f} tok/s")

        system = run_trial(settings, folder, resume=resume, say=say, progress=show, datasets=begin.datasets)
    if as_json:
        out.print_json(json.dumps({"model": str(folder / "model"), "system": system.describe()}))
    else:
        out.print(f"{'there:' if done else 'saved'} {folder / 'model'}; next: {_next(settings, folder / 'model')}", markup=False)


def _next(settings: Any, model: Path) -> str:
    """How the trained model is measured."""
    answers = next((f" --task {task}" for task in settings.tasks if task.partition(":")[0] == "answer"), "")
    return f"twofold evaluate {model} --data {settings.data.train[0]}{answers}"


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="A folder or file of pairs or documents, a BEIR folder, pydocs, hub:…, ir_datasets:…")],
    config: Annotated[Path | None, typer.Option("--config", help="Judge by these settings, not by those made for the data.")] = None,
    sets: Sets = [],  # noqa: B006 (typer reads the default)
    on_error: Annotated[str, typer.Option("--on-error", help="raise: stop at the first bad line; skip: count them.")] = "raise",
    as_json: Json = False,
) -> None:
    """Look at data before training on it: counts, lengths, cuts, repeats, leaks. Exit code 1 where a training would not start.

    Example: `twofold check my-data --on-error skip`

    Example: `twofold check scifact --config configs/scifact/moe_lora.toml --json`
    """
    from twofold.train.defaults import check_of

    with bar() as progress:
        found = check_of(data, config, [*sets, f"data.on_error={on_error}"], shown(progress))
    if as_json:
        out.print_json(json.dumps(found.as_dict()))
    else:
        for line in found.lines():
            out.print(line, markup=False, highlight=False)
    raise typer.Exit(1 if found.errors else 0)


@app.command()
def demo(
    to: Annotated[Path, typer.Option("--to", help="Where the trial goes.")] = Path("trials"),
    steps: Annotated[int | None, typer.Option(help="Train for so many steps instead of the demo's own.")] = None,
    as_json: Json = False,
) -> None:
    """Train one small model on both tasks on Python's own documentation, and show it before and after. No download.

    Example: `twofold demo`
    """
    from twofold.demo import run_demo

    report = run_demo(to, console=Console(quiet=True) if as_json else out, steps=steps)
    if as_json:
        out.print_json(json.dumps(report))
