"""Hard task LoRAs (selection as in Jina v3, arXiv 2409.10173): one LoRA per task, chosen by the given task, on a frozen backbone.

Jina v3 has no cross-encoder adapter and trains its adapters one after another; here they train side by side, which is
the same thing (a test): no step of one touches the other. With `shared` they also have an expert that every task adds.
"""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage, expert_of


def build(*, tasks: tuple[str, ...], rank: int = 12, shared: int = 0, alpha: float | None = None, targets: str = ".*") -> Method:
    """`rank` of each task's LoRA (12 + 12 matches a total of 24); `shared`: rank of an expert that all tasks add (0: none)."""
    own = {task: expert_of(task) for task in tasks}
    experts = [Expert(name, rank, alpha) for name in own.values()]
    common = (Expert("shared", shared, alpha),) if shared else ()
    sees = {task: (name, *(expert.name for expert in common)) for task, name in own.items()}
    plan = LayerPlan((*experts, *common), sees=sees, targets=targets, router="by_task")
    stage = Stage("joint", tasks, ("expert:*", *HEADS))
    return Method("hard_lora", (Member("unified", tasks, (stage,), plan),))
