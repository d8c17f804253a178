"""Commands that serve: `serve`, `key`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from twofold.cli.frame import app, err, out
from twofold.errors import ConfigError

KEY = "TWOFOLD_API_KEY"


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A saved folder, or builtin.")],
    index: Annotated[Path | None, typer.Option(help="An index made by `twofold index` with this model: search, answers, the page.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; other machines can only come in with a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8080,
    name: Annotated[str | None, typer.Option(help="What clients call the model; without it, its folder's name.")] = None,
    keys: Annotated[Path | None, typer.Option(help="A file of keys (see `twofold key`); one more may be in TWOFOLD_API_KEY.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines in without a key.")] = False,
    allowed_host: Annotated[list[str], typer.Option(help="A name under which the server may be addressed; may be repeated.")] = [],  # noqa: B006
    device: Annotated[str, typer.Option(help="cpu, cuda:0, …")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads of the model.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or bf16-weights; unless said, the faster of the first two.")] = None,
    engine: Annotated[
        str, typer.Option(help="Of single short queries: torch, openvino, or auto for the faster here, if installed.")
    ] = "auto",
    max_wait: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may wait; what would wait longer is refused.")] = 2.0,
) -> None:
    """Serve a model over HTTP: embeddings, reranking, search and answers behind the APIs that clients know, and a page.

    Example: `twofold serve builtin --index my-index`
    """
    _need_server()
    from twofold.model.engine import check_engine
    from twofold.serve.keys import read_keys
    from twofold.serve.opening import Choice, opener
    from twofold.serve.run import Listening, serve
    from twofold.serve.service import Service

    check_engine(engine, device)
    known = read_keys(keys, os.environ.get(KEY) or None)
    listening = Listening(host, port, known, insecure, tuple(allowed_host))
    service = Service(name or Path(model).name, max_wait=max_wait)
    serve(service, opener(Choice(model, index, device, threads, precision, engine)), listening, _say)


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    admin: Annotated[bool, typer.Option("--admin", help="May also read metrics and the API's description.")] = False,
) -> None:
    """Make an API key: the key itself, to be kept by its user alone, and the line for the server's file.

    Example: `twofold key laptop >> keys.txt`
    """
    from twofold.serve.keys import new_key

    word, line = new_key(name, "admin" if admin else "use")
    err.print(f"the key, shown only now: {word}", markup=False, highlight=False)
    out.print(line, markup=False, highlight=False)


def _say(address: str) -> None:
    err.print(f"{address}  (Ctrl-C ends it)", markup=False, highlight=False)


def _need_server() -> Any:
    """Raises ConfigError where the extra is not installed."""
    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'twofold[serve]'") from error
    return fastapi, prometheus_client, uvicorn
