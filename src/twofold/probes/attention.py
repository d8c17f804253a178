"""How attention differs between embedding and reranking: the same inputs under the experts of either task, and without experts.

Of an attention row p over the n tokens of a text (mean over the layer's heads of what is said of each head's rows, then over tokens, then
over inputs):

    entropy   −Σ p ln p in nats, and as a share of ln n (of those that may be seen: for a causal model ln of the place)
    distance  Σ p |i − j| in tokens
    first     p of the text's first token; frame: of what the template put there ([CLS], [SEP], …)
    query_to_document   mass that a pair's query tokens put on its document tokens, beside the share of the pair that these are
    js        Jensen-Shannon divergence in nats, 0 to ln 2 = .693, between two sets of experts on the same inputs, row by row

Queries, documents and pairs differ in length and kind, and so does attention on them under the same experts; only rows of the same
`input` compare experts. Packed attention gives no weights, so this probe runs eager and padded; its hidden states are those of the usual
run, and the largest difference that was seen is among the facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from twofold.backbone.packed import Pack, split
from twofold.data.sources import Dataset
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.probes import Progress, Report, Row, quiet
from twofold.probes._material import LENGTH, Pass, ranking_passes, sample
from twofold.probes._numbers import mean_of, rounded

NONE = "none"
TOKENS = 2048
MEASURES = ("entropy", "entropy_share", "distance", "first", "frame", "query_to_document", "document_to_query")
UNITS = {
    "entropy": "mean entropy of an attention row, nats",
    "entropy_share": "the same as a share of the most that is possible, 0 to 1",
    "distance": "mean distance of what is attended to, tokens",
    "first": "mass on the text's first token, 0 to 1",
    "frame": "mass on the template's own tokens, 0 to 1",
    "query_to_document": "mass that query tokens put on document tokens, 0 to 1; pairs only",
    "document_share": "share of a pair's tokens that are document tokens: the mass if attention were even",
    "document_to_query": "mass that document tokens put on query tokens, 0 to 1; pairs only",
    "js": "mean Jensen-Shannon divergence between rows, nats, 0 to .693",
    "experts": "the task whose experts were used; none: the backbone without any",
    "largest_difference": "between hidden states of this and the usual run, relative to the largest hidden state",
}


class Variant(NamedTuple):
    """Whose experts are used: a model and the names of the passes."""

    experts: str
    model: UnifiedModel
    names: str | Sequence[str]


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "test",
    queries: int = 40,
    progress: Progress = quiet,
    length: int = LENGTH,
) -> Report:
    """`length`: tokens of an input (0: the model's own)."""
    notes: list[str] = []
    taken = sample(dataset, split, queries)
    notes.append(taken.text)
    passes = ranking_passes(system, taken, notes, length)
    rows: list[Row] = []
    diverging: list[Row] = []
    off = 0.0
    for one in passes:
        found = _look(one, _variants(system, passes, one), progress)
        off = max(off, found.off)
        rows += [{"input": one.side, **row} for row in found.rows]
        diverging += [{"input": one.side, **row} for row in found.js]
    facts: Row = {"largest_difference": rounded(off, 9)}
    for row in _means(rows):
        facts |= {f"{row['input']} {row['experts']} {measure}": row[measure] for measure in ("entropy", "distance", "query_to_document")}
    tables = {"means": _means(rows), "layers": rows, "divergence": diverging}
    return {"facts": {key: value for key, value in facts.items() if value is not None}, "tables": tables, "units": UNITS, "notes": notes}


class _Found(NamedTuple):
    rows: list[Row]
    js: list[Row]
    off: float


def _variants(system: System, passes: Sequence[Pass], one: Pass) -> list[Variant]:
    """The experts of embedding and of each task on pairs, and none, for the inputs of one pass."""
    pairs = [Variant(other.task, other.model, other.names) for other in passes if other.side == "pair"]
    embed = next(other for other in passes if other.side == ("query" if one.side == "query" else "document"))
    names = embed.names if isinstance(embed.names, str) or one.side in ("query", "document") else embed.task
    return [Variant(embed.task, system.embedder, names), *pairs, Variant(NONE, one.model, ())]


def _look(one: Pass, variants: Sequence[Variant], progress: Progress) -> _Found:
    """All variants on the inputs of one pass, layer by layer."""
    sums: dict[tuple[int, str], dict[str, list[Tensor]]] = {}
    between: dict[tuple[int, str, str], list[Tensor]] = {}
    off, done = 0.0, 0
    for chunk, at in split(one.pack, TOKENS):
        weights = {}
        for variant in variants:
            names = variant.names if isinstance(variant.names, str) else [variant.names[i] for i in at] if variant.names else ()
            hidden_TD, weights[variant.experts] = variant.model.backbone.attentions(chunk, names)
            with torch.no_grad():
                usual_TD = variant.model.backbone(chunk, names)[0]
            off = max(off, float((hidden_TD - usual_TD).abs().max() / usual_TD.abs().max().clamp_min(1e-6)))
            for layer, weight_SHLL in enumerate(weights[variant.experts]):
                for measure, value_S in measures(weight_SHLL, chunk, variant.model.backbone.causal).items():
                    sums.setdefault((layer, variant.experts), {}).setdefault(measure, []).append(value_S)
        for a, b in _pairs([variant.experts for variant in variants]):
            for layer, (first, second) in enumerate(zip(weights[a], weights[b], strict=True)):
                between.setdefault((layer, a, b), []).append(divergence(first, second, chunk))
        done += len(at)
        progress(f"attention of {one.side}s ({one.task})", done, one.size)
    rows: list[Row] = [
        {"layer": layer, "experts": experts, **{measure: _mean(values) for measure, values in found.items()}}
        for (layer, experts), found in sorted(sums.items())
    ]
    js: list[Row] = [{"layer": layer, "a": a, "b": b, "js": _mean(values)} for (layer, a, b), values in sorted(between.items())]
    return _Found(rows, js, off)


def measures(weight_SHLL: Tensor, pack: Pack, causal: bool) -> dict[str, Tensor]:
    """Each measure (S,) of one layer; NaN where a text has nothing to measure."""
    weight, real_SL = weight_SHLL.float(), _real(pack, weight_SHLL)
    at_L = torch.arange(weight.shape[-1], device=weight.device)
    part_SL = torch.zeros_like(real_SL, dtype=torch.long)
    part_SL[real_SL] = pack.part_T.to(weight.device)
    seen_SL = (at_L + 1).expand_as(real_SL) if causal else real_SL.sum(1, keepdim=True).expand_as(real_SL)
    entropy_SHL = -torch.special.xlogy(weight, weight).sum(-1)
    most_SHL = seen_SL.float().log().clamp_min(1e-9)[:, None].expand_as(entropy_SHL)
    share_SHL = torch.where(seen_SL[:, None] > 1, entropy_SHL / most_SHL, torch.nan)
    away_LL = (at_L[:, None] - at_L[None]).abs().float()
    query_SL, document_SL, frame_SL = part_SL.eq(1) & real_SL, part_SL.eq(2) & real_SL, part_SL.eq(0) & real_SL
    found = {
        "entropy": _over(entropy_SHL, real_SL),
        "entropy_share": _over(share_SHL, real_SL),
        "distance": _over((weight * away_LL).sum(-1), real_SL),
        "first": _over(weight[..., 0], real_SL),
        "frame": _over((weight * frame_SL[:, None, None]).sum(-1), real_SL),
    }
    if bool(document_SL.any()):
        found |= {
            "query_to_document": _over((weight * document_SL[:, None, None]).sum(-1), query_SL),
            "document_share": document_SL.sum(1) / real_SL.sum(1),
            "document_to_query": _over((weight * query_SL[:, None, None]).sum(-1), document_SL),
        }
    return found


def divergence(first_SHLL: Tensor, second_SHLL: Tensor, pack: Pack) -> Tensor:
    """(S,) Jensen-Shannon divergence of rows in nats, the mean over heads and real tokens (Lin 1991)."""
    first, second = first_SHLL.float(), second_SHLL.float()
    mean = (first + second) / 2
    js_SHL = sum((torch.special.xlogy(each, each) - torch.special.xlogy(each, mean)).sum(-1) for each in (first, second)) / 2
    assert isinstance(js_SHL, Tensor)
    return _over(js_SHL.clamp_min(0), _real(pack, first_SHLL))


def _real(pack: Pack, weight_SHLL: Tensor) -> Tensor:
    lengths = torch.tensor(pack.lengths, device=weight_SHLL.device)
    return torch.arange(weight_SHLL.shape[-1], device=weight_SHLL.device)[None] < lengths[:, None]


def _over(value_SHL: Tensor, kept_SL: Tensor) -> Tensor:
    """(S,) the mean over heads and those tokens that are kept and have a value."""
    known_SHL = kept_SL[:, None] & value_SHL.isfinite()
    return torch.where(known_SHL, value_SHL, 0.0).sum((1, 2)) / known_SHL.sum((1, 2))


def _pairs(experts: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((a, b) for i, a in enumerate(experts) for b in experts[i + 1 :])


def _mean(values: Sequence[Tensor]) -> float | None:
    known = torch.cat(list(values))
    known = known[known.isfinite()]
    return rounded(float(known.mean())) if len(known) else None


def _means(rows: Sequence[Row]) -> list[Row]:
    """The mean over layers of every input and set of experts."""
    found: list[Row] = []
    for given, experts in dict.fromkeys((row["input"], row["experts"]) for row in rows):
        own = [row for row in rows if (row["input"], row["experts"]) == (given, experts)]
        mean: Row = {"input": given, "experts": experts}
        for measure in (*MEASURES, "document_share"):
            mean[measure] = mean_of(row.get(measure) for row in own)
        found.append(mean)
    return found
