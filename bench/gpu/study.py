"""A small study on a GPU: every method of a set of configs with several seeds, on one dataset folder, trained and measured.

    python -m bench.gpu.study configs/scifact/*.toml --data DIR --seeds 0 1 2 --to results/study
    python -m bench.gpu.study configs/scifact/*.toml --dry-run

Each config is trained once per seed with the same overrides (`--set optim.steps=300`), and evaluated on the test split; one evaluation
file per trial, `NAME-seedS.json`, as `twofold evaluate` writes it. What is there already is not made again, so that a second call goes on
where the first was stopped. At the end a JSON of means over seeds is printed. Negatives are mined once and cached ($TWOFOLD_CACHE).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
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
    parser.add_argument("--data", help="the dataset: a BEIR folder carried along, or a name")
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


def trial(path: Path, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Trains and measures one config with one seed, or reads what was measured before."""
    name = f"{configs.read(path).name}-seed{seed}"
    to = chosen.to / f"{name}.json"
    if not to.is_file():
        data = json.dumps(str(chosen.data))
        ours = [f"name={name}", f"seed={seed}", f"data.train=[{data}]", "backbone.precision=bf16"]
        settings = configs.read(path, [*ours, *chosen.overrides])
        system = run_trial(settings, chosen.trials / name, resume=True, say=lambda line: print(f"{name}: {line}", file=sys.stderr))
        facts = read_facts(chosen.trials / name / "model")
        result = evaluate(
            system,
            open_dataset(chosen.data),
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


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = options(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        if chosen.dry_run:
            folder = Path(temporary)
            chosen.data, chosen.seeds, chosen.depth = tiny.dataset(folder / "data"), chosen.seeds[:1], 5
            chosen.trials, chosen.to = folder / "trials", folder / "results"
            chosen.overrides = [*chosen.overrides, f"backbone.name={json.dumps(str(tiny.backbone(folder / 'tiny')))}", *TINY]
        found = {path.stem: [trial(path, seed, chosen) for seed in chosen.seeds] for path in chosen.configs}
    means: dict[str, Any] = {}
    for name, results in found.items():
        values = {row: [round(result["rows"][row]["nDCG@10"], 4) for result in results] for row in ROWS}
        means[name] = {row: {"mean": round(statistics.mean(each), 4), "seeds": each} for row, each in values.items()}
    content = {"nDCG@10": means, "seeds": chosen.seeds, "dry_run": chosen.dry_run, "environment": provenance.environment()}
    print(json.dumps(content, indent=2))
    return content


if __name__ == "__main__":
    main()
