"""A further expert for a trained model (`start = MODEL`): new tasks learn with it, and nothing that was there before moves.

`classify` gets an expert and a head of its own; the tasks of one variant (`retrieve:legal`, `rerank:legal`) share an expert
`domain:legal`, which is how a model is adapted to a domain without losing the others. Old experts are seen and mixed in,
and stay frozen. Without a `start` it is one LoRA for its tasks.
"""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage
from twofold.tasks import kind_of, variant_of


def build(*, tasks: tuple[str, ...], rank: int = 8, alpha: float | None = None, beside: tuple[str, ...] | None = None) -> Method:
    """`rank` of each new expert; `beside`: the old experts that the new tasks see too (default: what their kind sees, else all)."""
    own = {task: expert_for(task) for task in tasks}
    names = tuple(dict.fromkeys(own.values()))
    plan = LayerPlan(tuple(Expert(name, rank, alpha) for name in names), sees={task: (name,) for task, name in own.items()})
    stage = Stage("added", tasks, (*(f"expert:{name}" for name in names), "router", *HEADS))
    return Method("add_expert", (Member("unified", tasks, (stage,), plan, {} if beside is None else dict.fromkeys(tasks, beside)),))


def expert_for(task: str) -> str:
    """`domain:legal` for `retrieve:legal` and `rerank:legal`; else the task's own name."""
    return f"domain:{variant_of(task)}" if variant_of(task) and kind_of(task) in ("retrieve", "rerank") else task
