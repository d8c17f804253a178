"""Commands that use a model: `encode`, `rank`, `classify`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from twofold.cli.frame import Json, app, out


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
