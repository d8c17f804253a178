"""Commands that use a model: `encode`, `rank`, `classify`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.frame import Json, app, bar, out
from twofold.errors import ConfigError


@app.command()
def encode(
    model: Annotated[str, typer.Argument(help="A saved folder.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; without any, one per line of the input. With --shard: documents.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="query or document.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the vectors to this .npy file; with --shard, to this folder.")] = None,
    shard: Annotated[int | None, typer.Option(min=0, help="Encode this part, from 0, of a folder or file of documents.")] = None,
    num_shards: Annotated[int, typer.Option(min=1, help="Of so many.")] = 1,
    size: Annotated[int | None, typer.Option(help="With --shard: tokens of a passage, as for index.")] = None,
    overlap: Annotated[int | None, typer.Option(help="With --shard: as for index.")] = None,
    as_json: Json = False,
) -> None:
    """Turn texts into unit vectors; or a part of many documents into a folder that `twofold index --vectors` takes.

    Example: `twofold encode trials/moe/model "what is a lambda?" --prompt query --json`

    Example: `twofold encode builtin corpus.jsonl --shard 2 --num-shards 8 --to shards`
    """
    import numpy as np

    from twofold.model.folder import load_system

    if shard is not None:
        _encode_shard(model, texts, to, shard, num_shards, size, overlap, as_json)
        return
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


def _encode_shard(
    model: str, documents: list[str] | None, to: Path | None, shard: int, of: int, size: int | None, overlap: int | None, as_json: bool
) -> None:
    from twofold.search.index import AUTO, named
    from twofold.search.passages import Cut
    from twofold.search.reader import Reader
    from twofold.search.shards import encode_shard, shard_folder
    from twofold.search.sources import open_origin

    if to is None or documents is None or len(documents) != 1:
        raise ConfigError("--shard: name one folder, file or dataset, and --to FOLDER")
    origin, reader = open_origin(documents[0]), Reader.load(model, AUTO)
    with bar() as progress:
        row = progress.add_task(f"shard {shard} of {of}", total=None, note="")

        def show(seen: int, written: int) -> None:
            progress.update(row, completed=seen, note=f"{written:,} passages")

        report = encode_shard(origin, reader, Cut.of(reader.room, size, overlap), named(model), to, shard, of, show)
    folder = shard_folder(to, shard, of)
    if as_json:
        out.print_json(json.dumps({"shard": str(folder), **(report.as_dict() if report else {"there": True})}))
    elif report is None:
        out.print(f"{folder}: there already", markup=False, highlight=False)
    else:
        out.print(f"{folder}: {report.added:,} documents, {report.passages:,} passages", markup=False, highlight=False)


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
def classify(
    model: Annotated[str, typer.Argument(help="A saved folder.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, one per line of the input.")] = None,
    task: Annotated[str, typer.Option(help="The task that labels them, if the model has several.")] = "classify",
    as_json: Json = False,
) -> None:
    """Label texts with an expert that was added for it.

    Example: `twofold classify trials/banking77-added/model "my card has not arrived"`
    """
    from twofold.model.folder import load

    given = texts or [line.rstrip("\n") for line in sys.stdin]
    found = load(model).predict(task, given)
    if as_json:
        out.print_json(json.dumps([{"text": text, **one._asdict()} for text, one in zip(given, found, strict=True)]))
        return
    for text, one in zip(given, found, strict=True):
        out.print(f"{one.probability:6.3f}  {one.label}  {text[:80]}", markup=False)
