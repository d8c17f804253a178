"""Commands that answer: `answer`, and what `evaluate --task answer` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from twofold.cli.frame import Json, app, bar, out, shown
from twofold.errors import ConfigError
from twofold.nearest import unknown


@app.command()
def answer(
    words: Annotated[list[str], typer.Argument(metavar="[INDEX] QUESTION", help="The index and the question; with --passage no index.")],
    passage: Annotated[list[Path], typer.Option("--passage", help="Read this file instead of an index; may be repeated.")] = [],  # noqa: B006
    model: Annotated[str | None, typer.Option("--model", help="The model, if not the index's own; with --passage it must be said.")] = None,
    reader: Annotated[Literal["extractive", "decoder", "endpoint"], typer.Option(help="Who reads what was found.")] = "extractive",
    decoder: Annotated[
        str, typer.Option(help="For --reader decoder: a folder, a hub id, or what scripts/get-decoder made.")
    ] = "cache:smollm2",
    endpoint: Annotated[
        str | None, typer.Option(help="For --reader endpoint: http://HOST/v1 of a server that speaks OpenAI's API.")
    ] = None,
    endpoint_model: Annotated[str | None, typer.Option(help="And the name of its model; the key is $TWOFOLD_ENDPOINT_KEY.")] = None,
    read: Annotated[int, typer.Option(min=1, help="How many passages are read.")] = 5,
    depth: Annotated[int, typer.Option(min=1, help="How many passages are reranked.")] = 20,
    mode: Annotated[Literal["hybrid", "dense", "lexical"], typer.Option(help="The first stage.")] = "hybrid",
    task: Annotated[str, typer.Option(help="For --reader extractive: the task that reads, if the model has several.")] = "answer",
    threshold: Annotated[float | None, typer.Option(help="Answer nothing below this score, if not as the reader was tuned.")] = None,
    as_json: Json = False,
) -> None:
    """Answer a question from an index, with what the answer rests on; or say that nothing there supports one.

    Example: `twofold answer my-index "who wrote the first compiler?"` (a model that was trained with --add answer finds the words)

    Example: `twofold answer my-index "…" --reader endpoint --endpoint http://localhost:11434/v1 --endpoint-model llama3.2`

    Example: `twofold answer --model trials/squad-added/model --passage notes.txt "when was it founded?"`
    """
    from dataclasses import replace

    from twofold.search.answers import answer as find

    index, question = _asked(words, passage)
    system, hits = _passages(passage, question, model) if index is None else _search(index, question, model, max(read, depth), mode)
    who: Any = _reader(reader, task, system, decoder, endpoint, endpoint_model)
    found = find(question, hits, who if threshold is None else replace(who, threshold=threshold), depth=read)
    if as_json:
        out.print_json(json.dumps(found.as_dict()))
        return
    _show(found)


def _asked(words: list[str], passage: list[Path]) -> tuple[str | None, str]:
    if len(words) != (1 if passage else 2):
        wanted = "a question alone, since --passage says what is read" if passage else "an index and a question"
        raise ConfigError(f"{len(words)} arguments: give {wanted}, in quotation marks")
    if not words[-1].strip():
        raise ConfigError("the question is empty: ask with at least one word")
    return (None if passage else words[0]), words[-1]


def _search(index: str, question: str, model: str | None, depth: int, mode: Any) -> tuple[Any, Any]:
    """The index's model, and its best passages."""
    from twofold.model.folder import load
    from twofold.model.system import System
    from twofold.search.index import Index, precision_for
    from twofold.search.reader import Reader

    with Index.open(index) as opened:
        settings = opened.settings
        system = System.of(
            load(model or settings.model, precision=precision_for(settings.identity)), settings.identity.get("variant") or ""
        )
        found = opened.pipeline(Reader.of(system)).search(question, k=depth, depth=depth, mode=mode)
    return system, found.hits


def _passages(files: list[Path], question: str, model: str | None) -> tuple[Any, Any]:
    """A model, and the passages of some files."""
    from twofold.model.folder import load_system
    from twofold.search.files import file_hits
    from twofold.search.reader import Reader

    if model is None:
        raise ConfigError("--passage goes with --model: say which model reads it")
    system = load_system(model)
    return system, file_hits(files, question, Reader.of(system))


def _reader(kind: str, task: str, system: Any, decoder: str, endpoint: str | None, model: str | None) -> Any:
    from twofold.search import generation
    from twofold.search.answers import Extractive

    if kind == "extractive":
        try:
            return Extractive.of(system.reranker, task)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if kind == "decoder":
        return generation.Generative(generation.decoder(decoder), decoder)
    if not endpoint or not model:
        raise ConfigError("--reader endpoint needs --endpoint http://HOST/v1 and --endpoint-model NAME")
    return generation.Generative(generation.endpoint(endpoint, model), model)


def _show(found: Any) -> None:
    """The answer, then each place that it rests on: the sentence with the very words marked."""
    if not found.supported:
        best = f" (the best has {found.score:.2f}, {found.threshold:.2f} is asked for)" if found.score is not None else ""
        out.print(f"Nothing that was found answers this{best}.", markup=False, highlight=False)
        return
    out.print(found.text, style="bold", markup=False, highlight=False)
    for one in found.citations:
        shift = one.sentence[0]
        line = Text(f"[{one.number}] ").append(one.context.replace("\n", " "))
        line.stylize("reverse", len(f"[{one.number}] ") + one.start - shift, len(f"[{one.number}] ") + one.end - shift)
        out.print(line.append(f"  {one.source or one.document}", style="dim"))
    out.print(f"score {found.score:.2f}, {found.read} passages read", style="dim", markup=False, highlight=False)


def evaluate_answers(
    loaded: Any, facts: dict[str, Any], data: str, split: str, task: str, depth: int, sample: int | None, to: Path | None, as_json: bool
) -> None:
    """Exact match and F1 of a task's answers, with the right passage given and end to end."""
    from twofold.data.sources import open_dataset
    from twofold.evaluate.answering import Depths, answer_dataset
    from twofold.model.folder import load, still_there

    if task not in loaded.tasks:
        raise ConfigError(f"--task: {unknown('task', task, loaded.tasks)}")
    name, start = str(facts["name"]), facts.get("start")
    before = load(start["path"], precision=loaded.spec.precision) if start and still_there(start) else None
    with bar() as progress:
        result = answer_dataset(
            loaded,
            task,
            open_dataset(data),
            split,
            name=name,
            depths=Depths(depth),
            sample=sample,
            before=before,
            train=facts.get("train"),
            progress=shown(progress),
        )
    if to is not None:
        result.save(to)
    if as_json:
        out.print_json(result.to_json())
        return
    table = Table(
        "row", "exact match", "F1", "answered", title=f"{name} on {result.data['name']} {split}: {result.data['questions']} questions"
    )
    for row, values in result.rows.items():
        table.add_row(
            row, f"{values['exact_match']:.4f}", f"{values['f1']:.4f}", f"{values['answered']:.4f}" if "answered" in values else ""
        )
    out.print(table)
    found = result.found
    out.print(f"the right passage is first {found['first']:.4f}, among those read {found['read']:.4f} of the time", markup=False)
    if result.older:
        counts = f"{result.older['vectors']} vectors and {result.older['scores']} scores"
        out.print(f"older outputs, compared with the model before: {counts}, {result.older['changed']} changed", markup=False)
