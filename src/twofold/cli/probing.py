"""The command `probe`: one analysis of a trained model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from twofold.cli.frame import Json, app, bar, err, out, shown

ROWS = 24
"""Rows of one table that are shown; the file has all."""


@app.command()
def probe(
    name: Annotated[str, typer.Argument(help="`twofold probes` lists them; a dotted name is a module of your own.")],
    model: Annotated[str, typer.Argument(help="A saved folder, or builtin.")],
    data: Annotated[list[str], typer.Option("--data", help="A dataset; may be repeated: further ones are compared, or give labels.")],
    split: Annotated[str | None, typer.Option(help="train, dev or test; the probe's own unless said.")] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="At most so many queries; the probe's own number unless said.")] = None,
    variant: Annotated[str, typer.Option(help="The domain whose experts are looked at, if the model was given one.")] = "",
    options: Annotated[list[str] | None, typer.Option("--set", metavar="A=C", help="An option of the probe; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    to: Annotated[Path | None, typer.Option("--to", help="Write the whole report here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Look into a trained model: conflict, routing, content, similarity, angles, attention, knockout, affinity, transfer.

    Example: `twofold probe routing trials/moe/model --data scifact --data squad --to routing.json`
    """
    from twofold.cache import write_text

    result = _run(name, model, data, split, queries, variant, options or [], seed)
    text = json.dumps(result, ensure_ascii=False, allow_nan=False, indent=1)
    if to is not None:
        write_text(to, text + "\n")
    if as_json:
        out.print_json(text)
    else:
        _print(result)


def _run(
    name: str, model: str, data: list[str], split: str | None, queries: int | None, variant: str, sets: list[str], seed: int
) -> dict[str, Any]:
    """The report with what it is a report of."""
    from twofold import plugins, provenance
    from twofold.backbone.memory import keep_freed_memory
    from twofold.data.labelled import is_labelled, open_labelled
    from twofold.data.sources import open_dataset
    from twofold.errors import ConfigError
    from twofold.model.folder import load, load_system, manifest_sha256, read_facts
    from twofold.model.system import System
    from twofold.probes import probe as look

    keep_freed_memory()
    plugins.load("probes", name)  # a wrong name is said before anything is loaded
    chosen = _chosen(sets)
    if is_labelled(data[0]):
        raise ConfigError(f"--data {data[0]}: labelled texts; name a dataset of queries and documents first, and these behind it")
    dataset, beside = open_dataset(data[0]), [open_labelled(one) if is_labelled(one) else open_dataset(one) for one in data[1:]]
    system = System.of(load(model, precision="fp32"), variant) if variant else load_system(model, precision="fp32")
    trial, begun = Path(model).resolve().parent, time.monotonic()
    with bar() as progress:
        report = look(
            name,
            system,
            dataset,
            chosen,
            split=split,
            queries=queries,
            beside=beside,
            trial=str(trial) if (trial / "members").is_dir() else "",
            seed=seed,
            progress=shown(progress),
        )
    about = {"name": str(read_facts(model).get("name", model)), "manifest": manifest_sha256(model) if len(system.models) == 1 else None}
    return {
        "kind": "probe",
        "probe": name,
        "model": {**about, "variant": variant},
        "data": [{"name": one.name, "fingerprint": one.fingerprint} for one in (dataset, *beside)],
        "settings": {"split": split, "queries": queries, "seed": seed, **chosen},
        **report,
        "environment": provenance.environment(),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _chosen(sets: list[str]) -> dict[str, Any]:
    """`--set depth=5` → {"depth": 5}. Raises ConfigError for a key with dots: options of a probe are plain."""
    from twofold.errors import ConfigError
    from twofold.toml import parse_assignment

    found = {}
    for each in sets:
        keys, value = parse_assignment(each)
        if len(keys) != 1:
            raise ConfigError(f"--set {each}: options of a probe have no sections; use NAME=VALUE")
        found[keys[0]] = value
    return found


def _print(result: dict[str, Any]) -> None:
    """Facts, tables as far as a screen goes, notes."""
    names = ", ".join(one["name"] for one in result["data"])
    out.print(f"{result['probe']} of {result['model']['name']} on {names}", style="bold", markup=False)
    for key, value in result["facts"].items():
        out.print(f"  {key}: {_short(value)}", markup=False)
    for name, rows in result["tables"].items():
        if rows:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            table = Table(*columns, title=f"{name}, {len(rows)} rows" + (f", {ROWS} shown" if len(rows) > ROWS else ""))
            for row in rows[:ROWS]:
                table.add_row(*(_short(row.get(column)) for column in columns))
            out.print(table)
    for name, meaning in result["units"].items():
        out.print(f"{name}: {meaning}", style="dim", markup=False)
    for note in result["notes"]:
        err.print(note, style="yellow", markup=False)


def _short(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
