"""The server under load (T5) and overload (T6), and how one client's long requests delay another's short ones.

Load: 32 clients, each with one request at a time: 70 % embed one text, 25 % rerank 20, 5 % search the index; every vector and score is
compared with what the model gives without a server. The wait is not bounded here, since one or two processor cores cannot answer 32
clients within two seconds; the order, the latencies and the numbers are what is looked at. Overload: the server as it is started (2 s),
single texts at five times the rate that it was just measured to do, from 200 connections. Fairness: one client reranks 1,000 documents
again and again while another embeds single texts. Server and client are processes of their own; where `--cpus` names two processors,
each has its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import psutil

from bench import _measure
from bench._http import quantile, serving
from bench._load import CLIENTS, FACTOR, MIX, Work, closed, crowded, recovered, unfair

MAX_WAIT = 2.0


def child(arguments: Sequence[str]) -> None:
    """The server: the weights inside the package, or fresh ones on another backbone, with an index of the texts."""
    from twofold.search.stores import Passage
    from twofold.search.stores.exact import ExactStore
    from twofold.serve.library import Library
    from twofold.serve.run import Listening, serve
    from twofold.serve.service import Loaded, Service

    max_wait, *rest, _, port = arguments
    chosen = _measure.options(__doc__, rest, rounds=1)

    def load() -> Loaded:
        system, texts = _system(chosen), _measure.documents(chosen.texts, _count(chosen))
        store = ExactStore(None, system.embedder.width)
        rows = [Passage(f"{i}#0", str(i), "", text) for i, text in enumerate(texts)]
        store.upsert(rows, system.encode_documents(texts))
        return Loaded({"": system}, Library(store, system))

    with _measure.one_thread():
        serve(Service("bench", max_wait=float(max_wait), max_bulk_wait=600.0), load, Listening(port=int(port)))


def _system(chosen: Any) -> Any:
    from twofold import load_system
    from twofold.model.system import System

    return load_system("builtin") if chosen.backbone == _measure.BACKBONE else System.of(_measure.model(chosen.backbone, _measure.OURS))


def _count(chosen: Any) -> int:
    return 20 if chosen.quick else 200


Phase = Callable[[int, psutil.Process], Coroutine[Any, Any, dict[str, Any]]]


def _phase(chosen: Any, max_wait: float, cpus: list[int], run: Phase) -> dict[str, Any]:
    """A fresh server, one phase, and what its memory did."""
    command = ["bench.serve", "--child", str(max_wait), "--backbone", chosen.backbone, "--texts", chosen.texts]
    with serving([*command, *(["--quick"] if chosen.quick else [])], cpus[1] if len(cpus) > 1 else None) as (port, process):
        found = asyncio.run(run(port, process))
        return {**found, "load_average": [round(value, 2) for value in os.getloadavg()]}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["--child"]:
        child(arguments[1:])
        return {}
    cpus = [int(cpu) for cpu in arguments.pop(arguments.index("--cpus") + 1).split(",")] if "--cpus" in arguments else []
    chosen = _measure.options(__doc__, [each for each in arguments if each != "--cpus"], rounds=1)
    if cpus:
        psutil.Process().cpu_affinity([cpus[0]])
    seconds = 1.0 if chosen.quick else 60.0
    with _measure.one_thread():
        model = _system(chosen).embedder
        work = Work.made(model, _measure.documents(chosen.texts, _count(chosen)), _measure.queries(chosen.texts, 5 if chosen.quick else 15))

        async def load(port: int, process: psutil.Process) -> dict[str, Any]:
            await closed(port, work, CLIENTS, seconds / 6, MIX)
            before = (process.memory_info().rss, process.num_threads(), process.num_fds())
            begun = time.perf_counter()
            seen = await closed(port, work, CLIENTS, seconds, MIX)
            after = (process.memory_info().rss, process.num_threads(), process.num_fds())
            grown = {"rss": round(after[0] / before[0], 3), "threads": after[1] - before[1], "files": after[2] - before[2]}
            return {**seen.summary(time.perf_counter() - begun), "clients": CLIENTS, "grown": grown}

        async def overload(port: int, process: psutil.Process) -> dict[str, Any]:
            alone = await closed(port, work, 1, seconds / 12, (("embed", 1.0),))
            usual, before = quantile(alone.all, 0.5), process.memory_info().rss
            capacity = len((await closed(port, work, 16, seconds / 6, (("embed", 1.0),))).all) / (seconds / 6)
            begun = time.perf_counter()
            seen, health = await crowded(port, work, FACTOR * capacity, seconds / 2)
            took = time.perf_counter() - begun
            back = await recovered(port, work, usual)
            return {
                **seen.summary(took),
                "capacity": round(capacity, 2),
                "usual_p50": round(usual, 4),
                "refused_p99": round(quantile(seen.refused, 0.99), 4),
                "health_p99": round(quantile(health, 0.99), 4),
                "without_retry_after": seen.without_word,
                "goodput": round(len(seen.all) / took / max(capacity, 1e-9), 3),
                "recovery_s": round(back, 2),
                "rss": round(process.memory_info().rss / before, 3),
            }

        async def fairness(port: int, _: psutil.Process) -> dict[str, Any]:
            alone, beside = await unfair(port, work, seconds / 2)
            return {"alone": alone.summary(seconds / 6)["latency"]["all"], "beside": beside.summary(seconds / 2)["latency"]["all"]}

        phases = {
            "load": _phase(chosen, 600.0, cpus, load),
            "overload": _phase(chosen, MAX_WAIT, cpus, overload),
            "fairness": _phase(chosen, MAX_WAIT, cpus, fairness),
        }
        content = _result(chosen, phases, cpus)
    _measure.show(content, chosen.to)
    return content


def _result(chosen: Any, phases: dict[str, dict[str, Any]], cpus: list[int]) -> dict[str, Any]:
    load, overload, fairness = phases.values()
    latency = load["latency"]["all"]
    errors = sum(count for status, count in load["statuses"].items() if status != "200")
    unexpected = sum(count for status, count in overload["statuses"].items() if status not in ("200", "429", "503"))
    refused = sum(count for status, count in overload["statuses"].items() if status in ("429", "503"))
    limit = MAX_WAIT + 0.25  # and one pass, with what is around it
    ratios = {
        "load: p99 / p50": latency["p99"] / max(latency["p50"], 1e-9),
        "overload: accepted p99 / limit": overload["latency"]["all"]["p99"] / limit,
        "overload: goodput / capacity": overload["goodput"],
        "fairness: p99 beside a long request / alone": fairness["beside"]["p99"] / max(fairness["alone"]["p99"], 1e-9),
    }
    board = [
        ("T5", {"errors": errors, "wrong": load["wrong"], "p99_over_p50": round(ratios["load: p99 / p50"], 3)}),
        (
            "T6",
            {
                "unexpected": unexpected,
                "retry_after": 1.0 if not refused else round(1 - overload["without_retry_after"] / refused, 4),
                "p99_over_limit": round(ratios["overload: accepted p99 / limit"], 3),
                "goodput": overload["goodput"],
                "recovery_s": overload["recovery_s"],
            },
        ),
    ]
    shown = {name: {"value": round(value, 4), "low": round(value, 4), "high": round(value, 4)} for name, value in ratios.items()}
    clock = "wall clock of one machine that does other work too (see load_average): latencies are upper bounds"
    figures = {
        "load": {
            **{name: load[name] for name in ("requests_per_second", "wrong")},
            "errors": errors,
            **latency,
            "rss": load["grown"]["rss"],
        },
        "overload": {
            **{name: overload[name] for name in ("requests_per_second", "wrong", "refused_p99", "health_p99", "recovery_s", "rss")},
            **{"errors": unexpected, **overload["latency"]["all"]},
        },
        "beside 1,000 documents": fairness["beside"],
        "the same alone": fairness["alone"],
    }
    return _measure.result(
        "serve", __doc__ or "", shown, board, chosen, clock=clock, figures=figures, **phases, cpus=cpus, limit_seconds=limit
    )


if __name__ == "__main__":
    main()
