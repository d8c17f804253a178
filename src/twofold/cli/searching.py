"""Commands that search: `index`, `search`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from twofold.cli.frame import Json, app, bar, err, out
from twofold.errors import ConfigError

COMPLAINTS = 10
"""So many files that could not be read are named one by one."""
SNIPPET = 160
"""Characters of a passage that are shown."""


@app.command()
def index(
    documents: Annotated[str | None, typer.Argument(help="A folder, a file (.md, .html, .pdf, .txt, .jsonl), a dataset's name.")] = None,
    to: Annotated[Path, typer.Option("--to", help="The index: made if it is not there, else brought up to date.")] = Path("index"),
    model: Annotated[
        str | None, typer.Option("--model", help="A saved folder or builtin; an index keeps the one that it was made with.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before the documents' ids, if two folders have files of the same name.")] = "",
    size: Annotated[int | None, typer.Option(help="Tokens of a passage, if less than the model takes.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Tokens that neighbouring passages share at most; an eighth of the size.")] = None,
    store: Annotated[str | None, typer.Option(help="lancedb, qdrant, exact, or the dotted name of a module of yours.")] = None,
    options: Annotated[list[str], typer.Option("--option", metavar="KEY=VALUE", help="The store's own settings, such as url=….")] = [],  # noqa: B006
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or bf16-weights; unless said, the faster of the first two.")] = None,
    variant: Annotated[str, typer.Option(help="The domain whose expert embeds, if the model was given one.")] = "",
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="Take what `twofold encode --shard` made, in the place of documents.")
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what vanished, even if some lines could not be read.")] = False,
    as_json: Json = False,
) -> None:
    """Index documents, or bring an index up to date: only what changed is encoded. Stop it as you like; it goes on where it was.

    Example: `twofold index docs --to docs.index` and then `twofold search docs.index "how do I add a router?"`

    Example: `twofold index corpus.jsonl --to my.index --model trials/moe/model --store qdrant --option url=http://localhost:6333`
    """
    from twofold.backbone.memory import keep_freed_memory
    from twofold.search.index import open_or_make, writing
    from twofold.search.indexing import bring_up_to_date
    from twofold.search.shards import merge_shards, open_for
    from twofold.search.sources import open_origin

    if (documents is None) == (vectors is None):
        raise ConfigError("say what to index: a folder, a file, or a dataset's name; or --vectors FOLDER")
    keep_freed_memory()
    chosen = _options(options)
    origin = open_origin(documents, prefix) if documents is not None else None
    with writing(to), bar() as progress:
        show = _counted(progress, str(documents or vectors))
        if origin is None:
            assert vectors is not None
            found = open_for(vectors, to, store, chosen)
            report = merge_shards(found, vectors, prune=prune, progress=show)
        else:
            given = {"size": size, "overlap": overlap, "store": store, "precision": precision}
            found, reader = open_or_make(to, model, options=chosen, variant=variant, **given)  # type: ignore[arg-type]
            report = bring_up_to_date(found, origin, reader.spans, reader.callables.encode_document, prune=prune, progress=show)
        facts = found.store.facts()
        found.close()
    _print_report(report, to, facts, as_json)


def _counted(progress: Any, what: str) -> Callable[[int, int], None]:
    """A row that counts documents, and what `bring_up_to_date` calls to move it."""
    row = progress.add_task(what, total=None, note="")
    return lambda seen, written: progress.update(row, completed=seen, note=f"{written:,} passages written")


def _options(pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE`s; a value that is JSON is read as such."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"{pair!r}: use KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _print_report(report: Any, to: Path, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        out.print_json(json.dumps({"index": str(to), **report.as_dict(), "store": facts}))
        return
    for line in report.skipped.lines[:COMPLAINTS]:
        err.print(line, style="yellow", markup=False, highlight=False)
    counts = {name: getattr(report, name) for name in ("added", "changed", "unchanged", "deleted")}
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing to do"
    out.print(f"{to}: {said}; {facts['passages']:,} passages", markup=False, highlight=False)
    if report.skipped.counts:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in report.skipped.counts.most_common())
        out.print(f"left out: {kinds}", markup=False, highlight=False)
    whys = {
        "that cannot be read any more, with their old text: mend them, or remove them": report.kept - report.missing,
        "that are not there any more: lines that could not be read may have been them; mend those, or say --prune": report.missing,
    }
    for why, count in whys.items():
        if count:
            out.print(f"kept: {count} documents {why}", markup=False, highlight=False)


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="What `twofold index` made.")],
    query: Annotated[str, typer.Argument(help="A question, or words.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages are shown.")] = 5,
    depth: Annotated[int, typer.Option(min=1, help="How many candidates of the first stage are reranked.")] = 20,
    mode: Annotated[str, typer.Option(help="The first stage: hybrid, dense or lexical.")] = "hybrid",
    where: Annotated[
        list[str], typer.Option("--where", metavar="KEY=VALUE", help="Only documents with this metadata; a key given twice: either.")
    ] = [],  # noqa: B006
    fusion: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the vectors in hybrid; without it, reciprocal ranks.")
    ] = None,
    rerank_weight: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the pair score, if not the model's own.")] = None,
    no_rerank: Annotated[bool, typer.Option("--no-rerank", help="The first stage's order.")] = False,
    model: Annotated[str | None, typer.Option("--model", help="Where the model is, if not where it was.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Ranks and scores of both stages, and the routing per layer.")] = False,
    as_json: Json = False,
) -> None:
    """Search an index: a first stage, then the same model reads query and passage together.

    Example: `twofold search docs.index "how do I add a router?" -k 3 --where type=markdown --explain`
    """
    from twofold.search.index import Index, load_reader
    from twofold.search.pipeline import MODES

    if mode not in MODES:
        raise ConfigError(f"mode {mode!r}: use {', '.join(MODES)}")
    if not query.strip():
        raise ConfigError("the query is empty: ask with at least one word")
    condition: dict[str, list[str]] = {}
    for key, value in (pair.split("=", 1) for pair in map(_condition, where)):
        condition.setdefault(key, []).append(value)
    with Index.open(index) as opened:
        reader = load_reader(opened.settings, model)
        pipeline = opened.pipeline(reader, fusion, rerank_weight)
        found = pipeline.search(query, k, depth, mode, condition, explain, not no_rerank)
    if as_json:
        out.print_json(json.dumps(found.as_dict()))
        return
    for hit in found.hits:
        _print_hit(hit, explain)
    if not found.hits:
        out.print("nothing found" + (" with that condition" if condition else ""), markup=False)
    if explain and found.routing:
        _print_routing(found)
    times = ", ".join(f"{what} {1000 * seconds:.0f} ms" for what, seconds in found.seconds.items())
    out.print(f"{found.candidates} candidates ({found.mode}); {times}", style="dim", markup=False, highlight=False)


def _condition(pair: str) -> str:
    if "=" not in pair or pair.startswith("="):
        raise ConfigError(f"--where {pair!r}: use KEY=VALUE")
    return pair


def _print_hit(hit: Any, explain: bool) -> None:
    moved = hit.first_rank - hit.rank
    arrow = f"↑{moved}" if moved > 0 else f"↓{-moved}" if moved < 0 else "="
    heading = f"{hit.rank:2}. " + "  ".join(part for part in (hit.title, hit.source or hit.document) if part)
    out.print(heading, style="bold", markup=False, highlight=False)
    scores = [f"score {hit.score:.3f}", f"first stage {hit.first_rank} ({hit.first_score:.4f}) {arrow}"]
    scores += [] if hit.rerank_score is None else [f"pair {hit.rerank_score:.3f}"]
    if explain:
        for name, rank, score in (("dense", hit.dense_rank, hit.dense_score), ("lexical", hit.lexical_rank, hit.lexical_score)):
            scores.append(f"{name} –" if rank is None else f"{name} {rank} ({score:.3f})")
    out.print("    " + ", ".join(scores), style="dim", markup=False, highlight=False)
    words = " ".join(hit.text.split())
    out.print("    " + (words if len(words) <= SNIPPET else words[:SNIPPET].rpartition(" ")[0] + " …"), markup=False, highlight=False)


def _print_routing(found: Any) -> None:
    """What every layer's router gives each expert: for the query alone, and for the pairs shown, on average. `--json` has each pair."""
    pairs = [hit.routing for hit in found.hits if hit.routing]
    experts = list(dict.fromkeys(name for routing in (found.routing, *pairs) for weights in routing.values() for name in weights))
    table = Table("layer", *experts, title="routing: weight for the query → for its pairs", box=None, pad_edge=False)
    for layer, weights in found.routing.items():
        cells = []
        for expert in experts:
            own = [pair[layer][expert] for pair in pairs if expert in pair.get(layer, {})]
            query = f"{weights[expert]:.2f}" if expert in weights else "–"
            cells.append(query + (f" → {sum(own) / len(own):.2f}" if own else ""))
        table.add_row(layer, *cells)
    out.print(table)
