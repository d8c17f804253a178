"""Commands of a study: `study run`, `study status`, `study report`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from twofold.cli.frame import Json, app, err, out

study = typer.Typer(no_args_is_help=True, help="Grids of trials: run them, see how far they are, report what they say.")
app.add_typer(study, name="study")

File = Annotated[Path, typer.Argument(metavar="STUDY", help="A TOML file; see studies/.")]
Only = Annotated[list[str], typer.Option("--only", metavar="PATTERN", help="Only cells whose label fits, such as */moe_lora/* or seed0.")]
Results = Annotated[Path, typer.Option("--results", help="Where cells lie, a folder for each study.")]
RESULTS, TRIALS = Path("results/studies"), Path("trials/studies")


@study.command()
def run(
    file: File,
    only: Only = [],  # noqa: B006 (typer reads the default)
    jobs: Annotated[int, typer.Option(min=1, help="So many processes share the work.")] = 1,
    minutes: Annotated[float | None, typer.Option(help="Begin no cell that would, by the longest so far, end later.")] = None,
    results: Results = RESULTS,
    trials: Annotated[Path, typer.Option("--trials", help="Where trained models lie while they are needed.")] = TRIALS,
    as_json: Json = False,
) -> None:
    """Do what is not done yet of a study. Killed, it goes on; several processes, also on other machines, share it.

    A cell that fails is told and left, and the rest is done; the exit status is then 1, and the same command tries it again.

    Example: `twofold study run studies/interference.toml --minutes 90`
    """
    if jobs > 1:
        _many(file, only, jobs, minutes, results, trials)
        return
    from twofold.study.work import Worker

    store = _store(file, results)
    worker = Worker(store, trials, tuple(only), lambda line: err.print(line, style="dim", markup=False, highlight=False, soft_wrap=True))
    found = worker.run(minutes)
    _told(found, as_json)
    for label, error in worker.failed.items():
        err.print(f"failed: {label}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
    if worker.failed:
        raise typer.Exit(1)


def _many(file: Path, only: list[str], jobs: int, minutes: float | None, results: Path, trials: Path) -> None:
    """The same command in several processes; exits with 1 where one of them failed."""
    command = [sys.executable, "-c", "from twofold.cli import main; main()", "study", "run", str(file)]
    command += ["--results", str(results), "--trials", str(trials)]
    command += [part for each in only for part in ("--only", each)] + ([] if minutes is None else ["--minutes", str(minutes)])
    processes = [subprocess.Popen(command) for _ in range(jobs)]
    if sum(process.wait() != 0 for process in processes):
        raise typer.Exit(1)


@study.command()
def status(
    file: File,
    only: Only = [],  # noqa: B006 (typer reads the default)
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Say how much of a study is done, who is at what, and how long the rest will take.

    Example: `twofold study status studies/interference.toml`
    """
    from twofold.study.locks import owner
    from twofold.study.progress import progress_of

    store = _store(file, results)
    found = progress_of(store, tuple(only))
    busy = {path.stem: who for path in sorted((store.folder / ".locks").glob("*.lock")) if (who := owner(path)) is not None}
    if not as_json:
        for key, who in busy.items():
            out.print(f"{key}: in the hands of {who}", markup=False, highlight=False)
    _told(found, as_json)


def _store(file: Path, results: Path) -> Any:
    from twofold.study.file import read
    from twofold.study.sample import Samples
    from twofold.study.store import Store

    content = read(file)
    return Store(content, results / content.study.name, Samples(content.measure))


def _told(found: Any, as_json: bool) -> None:
    if as_json:
        out.print_json(json.dumps({key: value for key, value in asdict(found).items() if key != "took"}))
    else:
        out.print(str(found), markup=False, highlight=False)


@study.command()
def report(
    files: Annotated[list[Path], typer.Argument(metavar="STUDY…", help="TOML files, in the order of their sections.")],
    to: Annotated[Path, typer.Option("--to", help="The folder of the page, its Markdown twin and its pictures.")] = Path("docs/study"),
    results: Results = RESULTS,
    as_json: Json = False,
) -> None:
    """Write what studies found: one page that needs no network, and a Markdown file with the same numbers.

    Example: `twofold study report studies/*.toml --to docs/study`
    """
    from twofold.study.file import read
    from twofold.study.report import report as make
    from twofold.study.report import write

    found = make([read(file) for file in files], results)
    written = write(found, to)
    if as_json:
        out.print_json(json.dumps({"files": [str(path) for path in written], "answers": {a.number: a.answer for a in found.answers}}))
        return
    for each in found.answers:
        out.print(f"{each.number}. {each.question} {each.answer}", markup=False, highlight=False)
    out.print(f"written: {to / 'index.html'}, {to / 'report.md'}", markup=False, highlight=False)
