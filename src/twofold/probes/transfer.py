"""How much of a task's gain one expert carries: the shared one, say, in a model whose training never touched that task's own expert.

The gain of a task is nDCG@10 of the whole model over its base (no expert at all, but trained heads), on the small fixed contest of the
probe `knockout`. The share is (score with this expert alone − base) / (whole − base), in whole percent. With `full`, the folder of
a model in which all experts learnt both tasks, the gain is that one's, and the question is the study's: in a model one of whose experts
was frozen, how much of what the full model gains in that expert's task does the shared expert carry? (Freeze the reranking expert, train
embedding and shared: the share in `rerank` is what transfers; and the other way round.)
"""

from __future__ import annotations

from collections.abc import Sequence

from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.folder import load_system
from twofold.model.system import System
from twofold.nearest import unknown
from twofold.probes import Progress, Report, Row, quiet
from twofold.probes._arena import TASKS, Arena, carried, change, cut, without
from twofold.probes._looking import experts_of, one_mixture
from twofold.probes._material import LENGTH
from twofold.probes._numbers import Floats, rounded

UNITS = {
    "base": "mean nDCG@10 without experts, 0 to 1",
    "alone": "mean nDCG@10 with the expert alone",
    "whole": "mean nDCG@10 of the model",
    "full": "mean nDCG@10 of the model whose gain is shared out: `full`, or the model itself",
    "change": "nDCG@10 with the expert alone minus the base; low, high: 95 % bootstrap interval over queries",
    "share": "that change as a share of the full gain, whole percent; None where there is no certain gain",
    "whole_share": "the whole model's change over its base as a share of the full gain, whole percent",
}


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "test",
    queries: int = 40,
    seed: int = 0,
    progress: Progress = quiet,
    expert: str = "",
    full: str = "",
    depth: int = 5,
    length: int = LENGTH,
) -> Report:
    """`expert`: whose share ("shared" unless said, or the only one); `full`: the folder of the model whose gain it is a share of;
    `depth` and `length` as for `knockout`. Raises ConfigError for an expert that the model does not have."""
    model = one_mixture(system, "transfer")
    experts = experts_of(model)
    name = expert or ("shared" if "shared" in experts else experts[0] if len(experts) == 1 else "")
    if name not in experts:
        raise ConfigError(f"transfer: {unknown('expert', name, experts)}; say which by expert=NAME")
    arena = Arena.of(dataset, split, queries, depth)
    other = load_system(full, precision="fp32") if full else system
    facts: Row = {"expert": name, "full": full or None, "queries": len(arena.candidates)}
    rows: list[Row] = []
    with cut(system, length), cut(other, length):
        for i, task in enumerate(TASKS):
            whole_Q = arena.score(system, task)
            full_Q = arena.score(other, task) if full else whole_Q
            base_Q = _score(arena, system, task, experts)
            alone_Q = _score(arena, system, task, [each for each in experts if each != name])
            rows.append({"task": task, **_row(base_Q, alone_Q, whole_Q, full_Q, seed)})
            facts[f"{task}_share"] = rows[-1]["share"]
            progress("tasks", i + 1, len(TASKS))
    return {"facts": facts, "tables": {"tasks": rows}, "units": UNITS, "notes": [arena.text]}


def _score(arena: Arena, system: System, task: str, silent: Sequence[str]) -> Floats:
    with without(system.embedder, silent):
        return arena.score(system, task)


def _row(base_Q: Floats, alone_Q: Floats, whole_Q: Floats, full_Q: Floats, seed: int) -> Row:
    named = (("base", base_Q), ("alone", alone_Q), ("whole", whole_Q), ("full", full_Q))
    row: Row = {name: rounded(score_Q.mean()) for name, score_Q in named}
    row |= {**change(base_Q, alone_Q, seed), **carried(base_Q, alone_Q, full_Q, seed)}
    return row | {f"whole_{key}": value for key, value in carried(base_Q, whole_Q, full_Q, seed).items()}
