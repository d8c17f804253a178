"""Two models, one per task: what people load today. Fully fine-tuned, or a LoRA of rank R on a backbone of its own."""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage, expert_of


def build(*, tasks: tuple[str, ...], form: str = "full", rank: int = 24, alpha: float | None = None, targets: str = ".*") -> Method:
    """`form`: "full" (all of the backbone) or "lora" of `rank` each; `targets`: the LoRA's layers."""
    if form not in ("full", "lora"):
        raise ValueError(f"specialists: form {form!r}; use 'full' or 'lora'")
    members = []
    for task in tasks:
        plan = LayerPlan() if form == "full" else LayerPlan((Expert(expert_of(task), rank, alpha),), targets=targets)
        stage = Stage(task, (task,), ("backbone" if form == "full" else "expert:*", *HEADS))
        members.append(Member(task, (task,), (stage,), plan))
    return Method("specialists", tuple(members))
