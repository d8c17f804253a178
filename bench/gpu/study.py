"""A study on a GPU: every method of a set of configs, with several seeds, on several datasets, trained and measured.

    python -m bench.gpu.study configs/scifact/*.toml --data DIR… --seeds 0 1 2 --minutes 9 --to results/study
    python -m bench.gpu.study configs/scifact/*.toml --dry-run

Each config is trained once per dataset and seed with the same overrides (`--set optim.steps=300`), and evaluated on the test split; one
evaluation file per cell, `DATASET/NAME-seedS.json`, as `twofold evaluate` writes it. What is there already is not made again, so that a
second call goes on where the first was stopped; with `--minutes` no cell is begun for which, by the longest so far, too little time is
left. At the end a JSON of means over seeds is printed. Negatives are mined once and cached ($TWOFOLD_CACHE).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu import tiny
from twofold import config as configs
from twofold import provenance
from twofold.data.sources import open_dataset
from twofold.evaluate.evaluation import Settings, evaluate
from twofold.model.folder import read_facts
from twofold.train.trial import run_trial

ROWS = ("dense", "reranked", "pipeline", "oracle")
TINY = ["device=cpu", "threads=1", "backbone.precision=fp32", "backbone.max_length=32", "backbone.pair_length=48"]
TINY += ["backbone.query_length=8", "optim.steps=2", "optim.max_length=none", "optim.pair_length=none", "dev.queries=4", "dev.depth=5"]
TINY += ["data.negatives.bm25_depth=5", "data.negatives.model_depth=5", "tasks.retrieve.batch=4", "tasks.rerank.batch=2"]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=Path, help="TOML files of trials: one method each")
    parser.add_argument("--data", nargs="+", help="datasets: BEIR folders carried along, or names")
    parser.add_argument("--minutes", type=float, help="begin no cell that would, by the longest so far, end later than this")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="changes every config")
    parser.add_argument("--depth", type=int, default=100, help="how many documents are reranked (default %(default)s)")
    parser.add_argument("--trials", type=Path, default=Path("trials"), help="where trials lie (default %(default)s)")
    parser.add_argument("--to", type=Path, default=Path("results/study"), help="where evaluations go (default %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model and dataset on the CPU, two steps, one seed")
    chosen = parser.parse_args(arguments)
    if not chosen.dry_run and not chosen.data:
        parser.error("--data is needed: a BEIR folder or a name")
    return chosen


def result_file(path: Path, data: str, seed: int, chosen: argparse.Namespace) -> Path:
    """Where the evaluation of one cell lies."""
    found: Path = chosen.to / Path(data).name / f"{path.stem}-seed{seed}.json"
    return found


def cell(path: Path, source: str, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures one config on one dataset with one seed, or reads what was measured before."""
    to = result_file(path, source, seed, chosen)
    name = f"{to.parent.name}-{to.stem}"
    if not to.is_file():
        data = json.dumps(str(source))
        ours = [f"name={name}", f"seed={seed}", f"data.train=[{data}]", "backbone.precision=bf16"]
        settings = configs.read(path, [*ours, *chosen.overrides])
        system = run_trial(settings, chosen.trials / name, resume=True, say=lambda line: print(f"{name}: {line}", file=sys.stderr))
        facts = read_facts(chosen.trials / name / "model")
        result = evaluate(
            system,
            open_dataset(source),
            "test",
            name=name,
            method=str(facts.get("method", settings.method.name)),
            train=facts.get("train"),
            settings=Settings(depth=chosen.depth, bm25_rerank_depth=min(20, chosen.depth), retrieval_depth=max(100, chosen.depth)),
            truncated=lambda: system.truncated,
        )
        result.save(to)
    content: dict[str, Any] = json.loads(to.read_text(encoding="utf-8"))
    return content


def run_cells(chosen: argparse.Namespace) -> tuple[dict[tuple[str, str], list[dict[str, Any]]], int]:
    """(dataset, config) → its evaluations over the seeds, and how many cells the time did not suffice for. Seeds are the outer loop, so
    that a study that is cut off has some seeds of everything."""
    begun, longest, left = time.monotonic(), 0.0, 0
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed, data, path in itertools.product(chosen.seeds, chosen.data, chosen.configs):
        there, start = result_file(path, data, seed, chosen).is_file(), time.monotonic()
        if not there and chosen.minutes is not None and start - begun + longest > 60 * chosen.minutes:
            left += 1
            continue
        found.setdefault((Path(data).name, path.stem), []).append(cell(path, data, seed, chosen))
        longest = longest if there else max(longest, time.monotonic() - start)
    return found, left


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.dry_run:
            folder = Path(temporary)
            chosen.data, chosen.seeds, chosen.depth = [str(tiny.dataset(folder / "data"))], chosen.seeds[:1], 5
            chosen.trials, chosen.to = folder / "trials", folder / "results"
            chosen.overrides = [*chosen.overrides, f"backbone.name={json.dumps(str(tiny.backbone(folder / 'tiny')))}", *TINY]
        found, left = run_cells(chosen)
    means: dict[str, Any] = {}
    for (data, name), results in found.items():
        values = {row: [round(result["rows"][row]["nDCG@10"], 4) for result in results] for row in ROWS}
        means.setdefault(data, {})[name] = {row: {"mean": round(statistics.mean(each), 4), "seeds": each} for row, each in values.items()}
    content = {
        "nDCG@10": means,
        "seeds": chosen.seeds,
        "cells_left": left,
        "dry_run": chosen.dry_run,
        "environment": provenance.environment(),
    }
    print(json.dumps(content, indent=2))
    return content


if __name__ == "__main__":
    main()
