"""One LoRA for all tasks: no experts, no router. The rival to fear."""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage


def build(*, tasks: tuple[str, ...], rank: int = 24, alpha: float | None = None, targets: str = ".*") -> Method:
    """`rank`: 24 matches the total rank of three experts of 8, 8 the active rank of one; `alpha`: scale · rank (default 2 · rank)."""
    plan = LayerPlan((Expert("shared", rank, alpha),), targets=targets)
    stage = Stage("joint", tasks, ("expert:*", *HEADS))
    return Method("shared_lora", (Member("unified", tasks, (stage,), plan),))
