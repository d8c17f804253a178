"""MOELoRA: many small experts, mixed by learned weights of the task (Liu et al. 2024, SIGIR, arXiv 2310.18339).

The weights do not look at the input, so every task folds into the weights of its own model. What differs: the paper makes a task's
scores by a linear layer from an embedding of the task (64 features), here they are learned as such, which can be the same weights; they
sum to the number of experts instead of 1, so that the mixture starts at the scale of one LoRA of the summed rank.
"""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage


def build(*, tasks: tuple[str, ...], experts: int = 8, rank: int = 24, alpha: float | None = None, targets: str = ".*") -> Method:
    """`experts` that share `rank` evenly, as in the paper; `alpha` of each expert. Raises ValueError where it does not divide."""
    if rank % experts:
        raise ValueError(f"moelora: {rank} ranks for {experts} experts; use a multiple")
    bank = tuple(Expert(f"e{i}", rank // experts, alpha) for i in range(experts))
    plan = LayerPlan(bank, targets=targets, router="task_gate")
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS))
    return Method("moelora", (Member("unified", tasks, (stage,), plan),))
