"""A sketch, to see that the seam holds: experts trained apart, one after another, then frozen under a router that learns to mix
them (as MoLE does, Wu et al. 2024, arXiv 2404.13628)."""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage, expert_of


def build(*, tasks: tuple[str, ...], rank: int = 2) -> Method:
    plan = LayerPlan(tuple(Expert(expert_of(task), rank) for task in tasks), router="soft")
    apart = [Stage(task, (task,), (f"expert:{expert_of(task)}", *HEADS)) for task in tasks]
    return Method("mole", (Member("unified", tasks, (*apart, Stage("mix", tasks, ("router",), share=2.0)), plan),))
