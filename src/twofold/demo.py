"""`twofold demo`: five minutes on two cores. One small model learns to retrieve and to rerank Python's own documentation.

The documents are the functions of the standard library without their docstrings, the queries the docstrings' first
sentences; nothing is downloaded. The frozen backbone is measured first, then the trained model, on the same test queries.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from twofold import provenance
from twofold.backbone.memory import TRAINING_KERNELS, bound_kernels, keep_freed_memory
from twofold.config import TrialConfig
from twofold.data.sources import Dataset, open_dataset
from twofold.evaluate.evaluation import Evaluation, Settings, evaluate
from twofold.evaluate.significance import paired_delta
from twofold.model.footprint import footprint
from twofold.model.system import System
from twofold.train.loop import Progress as Pace
from twofold.train.trial import run_trial

DOCUMENTS, QUERIES, DEPTH, STEPS = 1500, 1500, 10, 30
TASKS = {"retrieve": {"batch": 24, "negatives": 1}, "rerank": {"batch": 8, "negatives": 6}}
SETTINGS = Settings(depth=DEPTH, bm25_rerank_depth=1)  # BM25 reranked is a row that the demo does not show
ROWS = {
    "dense": "retrieval (embeddings)",
    "reranked": f"reranking its own top {DEPTH}",
    "pipeline": "retrieve, then rerank",
}


def demo_config(method: str, steps: int, seed: int = 0) -> TrialConfig:
    """The demo's settings: short texts, few negatives, tens of steps; mixed precision where the processor has bf16."""
    precision = "bf16" if {"avx512_bf16", "amx_bf16"} & set(provenance.cpu()["flags"]) else "fp32"
    return TrialConfig.model_validate(
        {
            "name": f"demo-{method}",
            "seed": seed,
            "method": {"name": method},
            "backbone": {"max_length": 96, "pair_length": 128, "query_length": 32, "precision": precision},
            "data": {"train": ["pydocs"], "negatives": {"bm25_depth": 20, "model_depth": 20}},
            "tasks": TASKS,
            "optim": {"steps": steps, "lr": 5e-4},
            "dev": {"queries": 100, "depth": 10},
            "checkpoint": {"every": 20},
        }
    )


def run_demo(folder: Path, *, console: Console, steps: int | None = None, dataset: Dataset | None = None) -> dict[str, Any]:
    """Runs the demo and returns its report as plain data. `dataset` replaces pydocs (for tests)."""
    begun = time.monotonic()
    keep_freed_memory()
    bound_kernels(TRAINING_KERNELS)
    console.print("[bold]Twofold[/bold]: one model that retrieves and reranks. Everything below happens on this machine.\n")
    data = dataset or open_dataset("pydocs").subset(documents=DOCUMENTS, queries=QUERIES)
    counts = ", ".join(f"{len(data.queries(split))} {split}" for split in data.splits)
    console.print(f"data: {len(data.corpus):,} functions of Python {platform.python_version()}, sha256 {data.fingerprint[:12]}")
    console.print(f"queries: {counts}\n")
    systems, results = {}, {}
    for method, count in (("zero_shot", 0), ("moe_lora", STEPS if steps is None else steps)):
        systems[method] = _trained(method, count, folder, data, console)
        with console.status(f"measuring {method} on the test queries"):
            results[method] = evaluate(systems[method], data, "test", name=f"demo-{method}", method=method, settings=SETTINGS)
    model = trial_folder(folder, demo_config("moe_lora", STEPS if steps is None else steps)) / "model"
    with console.status("measuring memory, in processes of their own"):
        memory = {"one model": round(footprint(model), 1), "two models": round(footprint(model, apart=2), 1)}
    report = _report(results, systems["moe_lora"], memory, time.monotonic() - begun)
    _show(console, report)
    _show_queries(console, data, systems)
    console.print(f"\n{report['seconds']:.0f} seconds in all. What to type next:")
    hints = (
        (f'twofold rank {model} "remove a file" "def unlink(self): ..." "def open(path): ..."', "ask it"),
        ("twofold check MY-DATA", "a folder of JSONL pairs, of documents alone, or in BEIR's layout"),
        ("twofold train MY-DATA --from builtin", "go on from the weights that come with the package"),
        ("twofold evaluate trials/MY-DATA-continued/model --data MY-DATA", "what it gained, with tests"),
    )
    for command, what in hints:
        console.print(f"  # {what}", markup=False, highlight=False, style="dim")
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
    return report


def trial_folder(folder: Path, config: TrialConfig) -> Path:
    """Where a demo's trial lies: another Python or other settings are another trial."""
    return folder / f"{config.name}-{config.digest()[:8]}-py{platform.python_version()}"


def _trained(method: str, steps: int, folder: Path, data: Dataset, console: Console) -> System:
    """The frozen backbone, or the model after training under a progress bar."""
    config = demo_config(method, steps)
    label = "the frozen backbone" if method == "zero_shot" else f"training 3 experts and a router, {steps} steps"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        row = bar.add_task(label, total=max(steps, 1), note="")

        def show(_: str, now: Pace) -> None:
            bar.update(row, completed=now.step, note=f"{now.tokens_per_second:,.0f} tok/s")

        system = run_trial(config, trial_folder(folder, config), resume=True, progress=show, datasets={"pydocs": data})
        bar.update(row, completed=max(steps, 1))
    return system


def _report(results: Mapping[str, Evaluation], system: System, memory: Mapping[str, float], seconds: float) -> dict[str, Any]:
    before, after = results["zero_shot"], results["moe_lora"]
    rows = {}
    for row in ROWS:
        gain = paired_delta(after.per_query[row], before.per_query[row])
        scores = {"before": before.rows[row]["nDCG@10"], "after": after.rows[row]["nDCG@10"]}
        rows[row] = {**scores, **{key: round(getattr(gain, key), 6) for key in ("mean", "low", "high", "p")}}
    return {
        "kind": "demo",
        "data": dict(after.data),
        "python": platform.python_version(),
        "precision": system.embedder.spec.precision,
        "rows": rows,
        "bm25": after.rows["bm25"]["nDCG@10"],
        "oracle": after.rows["oracle"]["nDCG@10"],
        "rerank_weight": system.rerank_weight,
        "memory_mb": dict(memory),
        "seconds": round(seconds, 1),
        "environment": after.environment,
    }


def _show(console: Console, report: Mapping[str, Any]) -> None:
    table = Table("nDCG@10", "frozen", "trained", "gain", "95 % interval")
    for row, title in ROWS.items():
        values = report["rows"][row]
        table.add_row(
            title,
            f"{values['before']:.3f}",
            f"{values['after']:.3f}",
            f"{values['mean']:+.3f}",
            f"[{values['low']:+.3f}, {values['high']:+.3f}]",
        )
    console.print(table)
    console.print(f"Where the interval holds 0, {report['data']['queries']} queries cannot tell whether there is a gain.")
    memory = report["memory_mb"]
    console.print(f"BM25 for comparison {report['bm25']:.3f}; the best that reranking could do {report['oracle']:.3f}.")
    console.print(f"Memory, measured: {memory['one model']:.0f} MB for one model, {memory['two models']:.0f} MB for two.")


def _show_queries(console: Console, data: Dataset, systems: Mapping[str, System]) -> None:
    """Where the right function stands before and after, for the first three test queries that the frozen backbone did not get right."""
    queries, qrels, ids = sorted(data.queries("test").items()), data.qrels("test"), data.corpus.ids
    bodies = [document.body for document in data.corpus]
    places = []
    for system in systems.values():
        score_QN = system.encode_queries([text for _, text in queries]) @ system.encode_documents(bodies).T
        right = [[i for i, document in enumerate(ids) if qrels[query].get(document, 0) > 0] for query, _ in queries]
        places.append([int((score_N > score_N[own].max()).sum()) + 1 for score_N, own in zip(score_QN, right, strict=True)])
    console.print("\nthree queries that the frozen backbone missed: the rank of the right function,")
    console.print("frozen → trained:")
    for (_, text), before, after in [row for row in zip(queries, *places, strict=True) if row[1] > 1][:3]:
        console.print(f"  {before:>4} → {after:<4} {text[:66]}", markup=False, highlight=False)
