"""Hard task LoRAs (selection as in Jina v3, arXiv 2409.10173): one LoRA per task, chosen by the given task, on a frozen backbone.

Jina v3 has no cross-encoder adapter and trains its adapters one after another; here they train side by side, which is
the same thing (a test): no step of one touches the other. `sides` gives queries and passages an adapter each, trained together, as
there. Its adapters also lie on the embeddings; ours on all linear layers. With `shared` they also have an expert that every task adds.
"""

from __future__ import annotations

from typing import Any

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage, expert_of
from twofold.tasks import kind_of


def build(
    *,
    tasks: tuple[str, ...],
    rank: int = 12,
    sides: bool = False,
    shared: int = 0,
    frozen: tuple[str, ...] = (),
    alpha: float | None = None,
    targets: str = ".*",
) -> Method:
    """`rank` of each LoRA (12 + 12, or 8 + 8 + 8 with `sides`, match a total of 24; 24 matches an active rank of 24); `sides`: whether
    retrieval has one for queries and one for passages; `shared`: rank of an expert that all tasks add (0: none); `frozen`: experts that
    stay as they start, which is at nothing, so that a task of theirs learns by the others alone."""
    experts: list[Expert] = []
    sees: dict[str, tuple[str, ...]] = {}
    options: dict[str, dict[str, Any]] = {}
    common = ("shared",) if shared else ()
    for task in tasks:
        own = {task: expert_of(task)}
        if sides and kind_of(task) == "retrieve":
            own = {f"{task}/{side}": f"{expert_of(task)}:{side}" for side in ("query", "document")}
            options[task] = {"sides": True}
        experts += [Expert(name, rank, alpha) for name in own.values()]
        sees |= {task: (*own.values(), *common), **{passes: (name, *common) for passes, name in own.items()}}
    experts += [Expert(name, shared, alpha) for name in common]
    plan = LayerPlan(tuple(experts), sees=sees, targets=targets, router="by_task")
    names = [expert.name for expert in experts]
    if strangers := set(frozen) - set(names):
        raise ValueError(f"hard_lora: frozen {sorted(strangers)}, but the experts are {names}")
    trains = tuple(f"expert:{name}" for name in names if name not in frozen) if frozen else ("expert:*",)
    stage = Stage("joint", tasks, (*trains, *HEADS))
    return Method("hard_lora", (Member("unified", tasks, (stage,), plan, options=options),))
