"""Every method at CPU scale, trained and measured the same way: that it trains, and what it costs. Not which is best.

    python -m bench.methods                        all configs of configs/methods, then results/methods/scifact.json and docs/methods.md
    python -m bench.methods --only mole famo       only these, whatever was there before
    python -m bench.methods --decoder              the same for configs/methods/decoder: results/methods/decoder.json
    python -m bench.methods --render               only the page, from the committed results; --check: exit 1 where it is stale

What a row shows is what this does, whose settings every row shares:

    twofold train configs/methods/NAME.toml --set 'backbone.name="cache:minilm-3"'      (scripts/get-encoder)
    twofold train configs/methods/decoder/NAME.toml --set optim.steps=16 --set 'backbone.precision="bf16"'      (scripts/get-decoder)

and a look at a fixed sample of SciFact's test split. A row that is there is not made again, so a run that was stopped goes on. Times are
CPU seconds of one thread: training by the median step, encoding and scoring beside the bare backbone, taking turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import _measure
from bench._measure import ROOT
from twofold import config as configs
from twofold import provenance
from twofold.cache import write_text
from twofold.core.inject import LayerPlan
from twofold.data.sources import open_dataset
from twofold.evaluate.evaluation import Settings, evaluate
from twofold.model.build import build_model
from twofold.model.folder import load, read_facts
from twofold.model.footprint import footprint
from twofold.model.spec import ModelSpec
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.plugins import describe
from twofold.train.costs import folds
from twofold.train.loop import Progress
from twofold.train.trial import run_trial

FIRST = ("task_loras",)
"""What others start from."""
CONFIGS = ROOT / "configs" / "methods"
RESULTS = ROOT / "results" / "methods"
ENCODER = ['backbone.name="cache:minilm-3"']
DECODER = ["optim.steps=16", 'backbone.precision="bf16"']
"""Settings of every row, beside those of its file."""
DEPTH = 20
TEXTS, CANDIDATES = 32, 20


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these configs, made again")
    parser.add_argument("--decoder", action="store_true", help="the configs of the decoder")
    parser.add_argument("--configs", type=Path, help="another folder of configs")
    parser.add_argument("--data", default="scifact", help="what is evaluated on (default %(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="further settings of every row")
    parser.add_argument("--trials", type=Path, default=Path("trials"), help="where trials lie (default %(default)s)")
    parser.add_argument("--documents", type=int, default=1500, help="of the corpus (default %(default)s)")
    parser.add_argument("--queries", type=int, default=400, help="of all splits (default %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results are (default %(default)s)")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "methods.md", help="the page (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every timing (default %(default)s)")
    parser.add_argument("--render", action="store_true", help="only the page")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where the page is stale")
    chosen = parser.parse_args(arguments)
    kind = "decoder" if chosen.decoder else "scifact"
    chosen.to = chosen.results / f"{kind}.json"
    chosen.configs = chosen.configs or (CONFIGS / "decoder" if chosen.decoder else CONFIGS)
    chosen.overrides = [*(DECODER if chosen.decoder else ENCODER), *chosen.overrides]
    return chosen


class Stopwatch:
    """Tokens per CPU second of every step, from what a training reports after each."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.last: tuple[str, int, int, float] | None = None

    def __call__(self, member: str, now: Progress) -> None:
        seen, self.last = self.last, (member, now.step, now.tokens, time.process_time())
        if seen is not None and seen[0] == member and seen[1] + 1 == now.step:
            self.rates.append((now.tokens - seen[2]) / max(self.last[3] - seen[3], 1e-9))


def row(path: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Trains one config, unless it is trained, and measures the result."""
    settings = configs.read(path, chosen.overrides)
    watch, trial = Stopwatch(), chosen.trials / settings.name
    say = lambda line: print(f"{path.stem}: {line}", file=sys.stderr, flush=True)  # noqa: E731
    system = run_trial(settings, trial, resume=True, say=say, progress=watch)
    facts = read_facts(trial / "model")
    dataset = open_dataset(chosen.data).subset(documents=chosen.documents, queries=chosen.queries)
    found = evaluate(
        system,
        dataset,
        "test",
        name=path.stem,
        method=settings.method.name,
        train=facts.get("train"),
        settings=Settings(depth=DEPTH, bm25_rerank_depth=DEPTH, resamples=99),
    )
    train = facts.get("train") or {}
    return {
        "method": settings.method.name,
        "options": settings.method.options,
        "start": settings.start and Path(settings.start).parent.name,
        "nDCG@10": {name: found.rows[name]["nDCG@10"] for name in ("dense", "bm25_reranked", "pipeline")},
        "data": {key: found.data[key] for key in ("name", "fingerprint", "queries", "documents")},
        "train": {key: train.get(key) for key in ("steps", "before", "data", "lr", "seed", "tokens", "parameters")} if train else None,
        "tokens_per_second": round(statistics.median(watch.rates)) if watch.rates else None,
        "time_over_bare": times_over_bare(system, dataset, chosen.rounds),
        "megabytes": round(sum(footprint(place) for place in places(trial / "model")), 1),
        "folds": {task: folds(model, task) for task, model in (("retrieve", system.embedder), ("rerank", system.reranker))},
        "environment": provenance.environment(),
    }


def places(folder: Path) -> list[Path]:
    """The saved models of a trial: one, or an embedder and a reranker."""
    return [folder] if (folder / "config.json").is_file() else [folder / "embedder", folder / "reranker"]


def times_over_bare(system: System, dataset: Any, rounds: int) -> dict[str, dict[str, float]]:
    """Encoding documents and scoring pairs over the same on the bare backbone, tokenising included; medians of rounds, taking turns."""
    bare = bare_of(system.embedder)
    ids = sorted(dataset.corpus.ids)[: max(TEXTS, CANDIDATES)]
    texts = [dataset.corpus.document(each).body for each in ids]
    query = next(iter(dataset.queries("test").values()))
    pairs = [(query, text) for text in texts[:CANDIDATES]]
    with _measure.one_thread():
        encoding = {"ours": lambda: system.encode_documents(texts[:TEXTS]), "bare": lambda: bare.encode_documents(texts[:TEXTS])}
        scoring = {"ours": lambda: system.score(pairs), "bare": lambda: bare.score(pairs)}
        timed = {"encode": _measure.interleaved(encoding, rounds), "score": _measure.interleaved(scoring, rounds)}
    return {name: each.ratio("ours", "bare") for name, each in timed.items()}


def bare_of(model: UnifiedModel) -> UnifiedModel:
    """The model's backbone without experts, reading both tasks at the same lengths and in the same precision."""
    spec = model.spec
    lengths = {key: getattr(spec, key) for key in ("max_length", "pair_length", "query_length", "precision", "attention", "prompts")}
    backbone = spec.backbone
    if Path(backbone).is_dir() and (Path(backbone) / "facts.json").is_file():  # a saved model whose backbone was trained
        backbone = load(backbone).spec.backbone
    return build_model(ModelSpec(backbone, _measure.TASKS, plan=LayerPlan(), **lengths)).eval()


def run(chosen: argparse.Namespace) -> int:
    """Every row that is not there yet. A row that fails is told, and the others are made."""
    files = {path.stem: path for path in sorted(chosen.configs.glob("*.toml"))}
    names = chosen.only or [*(name for name in FIRST if name in files), *(name for name in files if name not in FIRST)]
    if unknown := sorted({*names} - {*files}):
        raise SystemExit(f"no config {unknown[0]!r} in {chosen.configs}; there are {', '.join(files)}")
    rows = json.loads(chosen.to.read_text(encoding="utf-8"))["rows"] if chosen.to.is_file() else {}
    failed = []
    for name in names:
        if name in rows and not chosen.only:
            continue
        try:
            rows[name] = row(files[name], chosen)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        save(chosen, rows)
    return len(failed)


def save(chosen: argparse.Namespace, rows: Mapping[str, Any]) -> None:
    """The result file, with all rows so far."""
    settings = {
        "overrides": chosen.overrides,
        "documents": chosen.documents,
        "queries_of_all_splits": chosen.queries,
        "depth": DEPTH,
        "timed": {"texts": TEXTS, "pairs": CANDIDATES, "rounds": chosen.rounds, "clock": _measure.CLOCK},
    }
    content = {"kind": "methods", "what": (__doc__ or "").strip(), "settings": settings, "rows": dict(sorted(rows.items()))}
    chosen.to.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.to, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


HEAD = (
    "config",
    "retrieval",
    "reranking",
    "both",
    "parameters, M",
    "trained",
    "used by retrieve / rerank",
    "train tokens/s",
    "encode ×",
    "score ×",
    "MB",
    "folds",
)

PAGE = """\
# Methods

Made by `python -m bench.methods` from [results/methods](../results/methods/scifact.json); no number is written by hand.

**What these tables are for.** They show that every method trains on both tasks by the same loop, and what that costs. They do not show
which is best: some tens of steps, one learning rate for all, one seed, and a sample of SciFact's test split. The grid that decides is
the study's, and for a GPU in [bench/gpu](../bench/gpu/README.md). `twofold methods --json` counts parameters and FLOPs of every method at
its defaults.

- *retrieval*: nDCG@10 of dense retrieval; *reranking*: of BM25's first candidates, the same for all; *both*: of its own first
  candidates, with the weight of the pair score tuned on dev.
- *trained* is what any stage moved; *used* what a task's passes use of that. *Train tokens/s*: tokens with a gradient per CPU second of one
  thread, by the median step.
- *encode ×*, *score ×*: time over the bare backbone's, tokenising included. *MB*: by how much a fresh process grows that loads it and does
  both (two models: their sum). *folds*: the routing is constant, so that a task's experts merge into the weights and cost nothing.

{sections}
## What they are

{names}

SciFact: claims CC BY 4.0, abstracts ODC-By 1.0.
"""
SECTION = """\
## {title}

`{command}` (after `{before}`): {steps} steps; {queries} queries, {documents} documents, {depth} candidates.

{table}

Hardware: {cpu}, {threads} thread; {dates}; commit {commits}; torch {torch}.
"""
KINDS = {
    "scifact": ("A MiniLM of three layers", "configs/methods/CONFIG.toml", "scripts/get-encoder"),
    "decoder": ("A decoder: eight layers of SmolLM2", "configs/methods/decoder/CONFIG.toml", "scripts/get-decoder --layers 8"),
}
"""Result → its title, its configs, and what makes its backbone."""


def render(results: Path, lines: Mapping[str, str]) -> str:
    """The page, of the result files' numbers alone."""
    found = {kind: json.loads(path.read_text(encoding="utf-8")) for kind in KINDS if (path := results / f"{kind}.json").is_file()}
    if "scifact" not in found:
        raise SystemExit(f"{results / 'scifact.json'} is not there: run this without --render first")
    sections = "\n".join(section(kind, content) for kind, content in found.items())
    names = (f"- `{name}` ({told(each)}): {lines.get(each['method'], '')}" for name, each in found["scifact"]["rows"].items())
    return PAGE.format(sections=sections, names="\n".join(names))


def section(kind: str, content: Mapping[str, Any]) -> str:
    """One result's table and how it came about."""
    rows, settings = content["rows"], content["settings"]
    title, place, before = KINDS[kind]
    some = next(iter(rows.values()))
    data, environment = some["data"], some["environment"]
    dates = sorted(each["environment"]["date"][:10] for each in rows.values())
    return SECTION.format(
        title=title,
        command=" ".join(["twofold train", place, *(f"--set '{each}'" for each in settings["overrides"])]),
        before=before,
        steps=steps_of(rows),
        queries=data["queries"],
        documents=f"{data['documents']:,}",
        depth=settings["depth"],
        table="\n".join([piped(HEAD), "|" + " --- |" * len(HEAD), *(piped(cells_of(place, name, each)) for name, each in rows.items())]),
        cpu=environment["cpu"]["model"],
        threads=environment["threads"],
        dates=" to ".join(dict.fromkeys((dates[0], dates[-1]))),
        commits=", ".join(sorted({str(each["environment"]["commit"])[:12] for each in rows.values()})),
        torch=environment["versions"]["torch"],
    )


def steps_of(rows: Mapping[str, Any]) -> str:
    """The steps per task that all trained rows share."""
    counts = sorted({count for each in rows.values() if each["train"] for count in each["train"]["steps"].values() if count})
    return " or ".join(map(str, counts))


def told(each: Mapping[str, Any]) -> str:
    """A row's method and options, and what it started from."""
    chosen = ", ".join(f"{key} = {json.dumps(value)}" for key, value in each["options"].items())
    return "; ".join(part for part in (each["method"], chosen, f"from {each['start']}" if each["start"] else "") if part)


def piped(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def cells_of(place: str, name: str, each: Mapping[str, Any]) -> list[str]:
    """A row's cells, under HEAD."""
    scores, train, times = each["nDCG@10"], each["train"], each["time_over_bare"]
    counted = train["parameters"] if train else None
    active = [f"{count / 1e6:.2f}" for count in (counted["active"].get("retrieve"), counted["active"].get("rerank"))] if counted else ["–"]
    known = {None: "–", True: "yes", False: "no"}
    both = list(dict.fromkeys(known[each["folds"][task]] for task in ("retrieve", "rerank")))
    return [
        f"[{name}](../{place.replace('CONFIG', name)})",
        *(f"{scores[key]:.3f}" for key in ("dense", "bm25_reranked", "pipeline")),
        f"{counted['total'] / 1e6:.1f}" if counted else "–",
        f"{counted['trainable'] / 1e6:.2f}" if counted else "0",
        " / ".join(active),
        f"{each['tokens_per_second']:,}" if each["tokens_per_second"] else "–",
        *(f"{times[key]['value']:.2f}" for key in ("encode", "score")),
        f"{each['megabytes']:.0f}",
        " / ".join(both),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    failed = 0 if chosen.render or chosen.check else run(chosen)
    page = render(chosen.results, dict(describe("methods")))
    if chosen.check:
        stale = not chosen.page.is_file() or chosen.page.read_text(encoding="utf-8") != page
        print("the page is stale: run `python -m bench.methods --render`" if stale else "the page is as the result says")
        return int(stale)
    chosen.page.parent.mkdir(parents=True, exist_ok=True)
    chosen.page.write_text(page, encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
