"""Memory of one process that embeds and reranks: one unified model over an embedder and a reranker (S9).

One: the backbone with three experts of rank 8 and routers. Two: sentence-transformers' SentenceTransformer and a CrossEncoder on the same
backbone. Each in a process of its own, which embeds 64 texts and scores 64 pairs. "weights" are the bytes of all parameters, which is what
S9 compares; "rss growth" is what the process grew by from before loading to after the work, libraries not counted; "rss" is all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench import _measure
from bench._measure import ROOT


def resident() -> float:
    """Megabytes of this process in memory."""
    return psutil.Process().memory_info().rss / 1e6


def weights(*models: Any) -> float:
    """Megabytes of the parameters."""
    parameters = {parameter.data_ptr(): parameter for model in models for parameter in model.parameters()}
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters.values()) / 1e6


def child(kind: str, chosen: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Loads, works and looks, in this process. The libraries of both sides are imported before the first look."""
    from bench import packed, rerank

    count = 4 if chosen.quick else 64
    texts = _measure.documents(chosen.texts, count)
    pairs = [(_measure.queries(chosen.texts, 1)[0], text) for text in texts]
    before = resident()
    if kind == "one":
        model = _measure.model(chosen.backbone, _measure.OURS)
        models: list[Any] = [model]
        model.encode(texts)
        model.score(pairs)
    else:
        embedder, reranker = packed.peer(chosen.backbone, "fp32", 256), rerank.peer(chosen.backbone, folder, packed.PRECISIONS["fp32"])
        models = [embedder, reranker]
        embedder.encode(texts)
        reranker.predict(pairs)
    after = resident()
    return {"weights": weights(*models), "rss growth": after - before, "rss": after}


def measured(kind: str, chosen: argparse.Namespace, folder: Path) -> dict[str, float]:
    """What a child process says."""
    command = [sys.executable, "-m", "bench.memory", "--child", kind, str(folder), "--backbone", chosen.backbone, "--texts", chosen.texts]
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run(
        [*command, *(["--quick"] if chosen.quick else [])], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["--child"]:
        chosen = _measure.options(__doc__, arguments[3:], rounds=5)
        with _measure.one_thread():
            print(json.dumps(child(arguments[1], chosen, Path(arguments[2]))))
        return {}
    chosen = _measure.options(__doc__, arguments, rounds=5)
    with _measure.one_thread(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "peer"
        from bench import packed, rerank

        rerank.peer(chosen.backbone, folder, packed.PRECISIONS["fp32"])  # written once, before anything is measured
        rounds = [{kind: measured(kind, chosen, folder) for kind in ("one", "two")} for _ in range(chosen.rounds)]
        ratios = {}
        for what in ("weights", "rss growth", "rss"):
            times = _measure.Times({kind: [each[kind][what] for each in rounds] for kind in ("one", "two")})
            ratios[f"{what}: one model / two"] = times.ratio("one", "two")
        megabytes = {kind: {what: [round(each[kind][what], 1) for each in rounds] for what in rounds[0][kind]} for kind in ("one", "two")}
        content = _measure.result(
            "memory", __doc__, ratios, [("S9", ratios["weights: one model / two"]["value"])], chosen, megabytes=megabytes
        )
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
