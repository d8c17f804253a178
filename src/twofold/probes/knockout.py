"""What is lost when an expert is taken out: each expert × task × group of layers, in nDCG@10 on a small fixed contest.

An expert is out when its weight is 0 in the layers of a group: all of them, or the early, middle or late third of the blocks ("zero": the
others keep their weights; "renormalised": they take over its share, so that the mixture's scale stays). The base has no expert at
all, but the model's trained heads. Of the gain (intact − base), `lost` is the share that goes when this expert goes, and
`kept` the share that is left when it alone stays; experts help one another or do the same twice, so neither adds up to 100.

Retrieval is scored on the queries' relevant documents and BM25's best others; reranking orders the same of these for every model. Both are
easier than the whole corpus, and the figures compare knock-outs with one another, not with an evaluation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.system import System
from twofold.nearest import unknown
from twofold.probes import Progress, Report, Row, quiet
from twofold.probes._arena import TASKS, Arena, carried, change, cut, depth_groups, without
from twofold.probes._looking import experts_of, one_mixture
from twofold.probes._material import LENGTH
from twofold.probes._numbers import Floats, rounded

ALL = "all"
UNITS = {
    "score": "mean nDCG@10, 0 to 1",
    "change": "nDCG@10 without the expert minus nDCG@10 of the whole model; low, high: 95 % bootstrap interval over queries",
    "lost": "share of the gain over the base that goes with the expert, whole percent; None where there is no certain gain",
    "kept": "share of the gain over the base that the expert alone keeps, whole percent; in all layers only",
}


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "test",
    queries: int = 40,
    seed: int = 0,
    progress: Progress = quiet,
    depth: int = 5,
    length: int = LENGTH,
    groups: tuple[str, ...] = (ALL,),
    how: str = "zero",
) -> Report:
    """`depth`: BM25's documents for each query; `length`: tokens of an input (0: the model's own); `groups` of layers: all, early,
    middle, late; `how`: zero or renormalised. Raises ConfigError for a group that there is not."""
    model = one_mixture(system, "knockout")
    known = depth_groups(model)
    if strange := [group for group in groups if group not in known]:
        raise ConfigError(f"knockout: {unknown('group of layers', strange[0], known)}")
    arena, experts = Arena.of(dataset, split, queries, depth), experts_of(model)
    rows: list[Row] = []
    facts: Row = {"queries": len(arena.candidates), "experts": len(experts), "how": how}
    with cut(system, length):
        for task in TASKS:
            cells = list(_cells(experts, groups))
            whole_Q = arena.score(system, task)
            base_Q = _score(arena, system, task, experts, None, how)
            progress(task, 1, len(cells) + 1)
            facts |= {f"{task}_whole": rounded(whole_Q.mean()), f"{task}_base": rounded(base_Q.mean())}
            for i, (expert, group) in enumerate(cells):
                gone_Q = _score(arena, system, task, (expert,), known[group], how)
                alone_Q = _score(arena, system, task, [e for e in experts if e != expert], None, how) if group == ALL else None
                rows.append({"task": task, "expert": expert, "layers": group, **_row(base_Q, whole_Q, gone_Q, alone_Q, seed)})
                progress(task, i + 2, len(cells) + 1)
    notes = [arena.text, *_notes(facts)]
    return {"facts": facts, "tables": {"knockouts": rows}, "units": UNITS, "notes": notes}


def _cells(experts: tuple[str, ...], groups: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return ((expert, group) for group in groups for expert in experts)


def _score(arena: Arena, system: System, task: str, silent: Collection[str], layers: Collection[str] | None, how: str) -> Floats:
    with without(system.embedder, silent, layers, how):
        return arena.score(system, task)


def _row(base_Q: Floats, whole_Q: Floats, gone_Q: Floats, alone_Q: Floats | None, seed: int) -> Row:
    """One expert in one group of layers. What is lost is carried by the difference: base + (whole − gone)."""
    lost = carried(base_Q, base_Q + whole_Q - gone_Q, whole_Q, seed)
    row: Row = {"score": rounded(gone_Q.mean()), **change(whole_Q, gone_Q, seed), "lost": lost["share"], "lost_low": lost["share_low"]}
    row |= {"lost_high": lost["share_high"], "kept": None, "kept_low": None, "kept_high": None}
    if alone_Q is not None:
        kept = carried(base_Q, alone_Q, whole_Q, seed)
        row |= {"kept": kept["share"], "kept_low": kept["share_low"], "kept_high": kept["share_high"]}
    return row


def _notes(facts: Row) -> list[str]:
    few = f"{facts['queries']} queries" if int(str(facts["queries"])) < 100 else ""
    return [f"{few}: intervals are wide; --queries asks for more"] if few else []
