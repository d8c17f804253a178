"""HydraLoRA: one A for all experts and a B for each, mixed per token (Tian et al. 2024, arXiv 2404.19245).

A linear router in every linear, with a softmax over all experts. Its start must not be zero: experts that share A and get equal weights
stay identical for ever (`banks/shared_down.py`). What differs: weights sum to the number of experts instead of 1, so that the mixture
starts at the scale of one LoRA; the number of experts is an option, where the paper chooses it by k-means of the data; no dropout.
"""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage


def build(
    *, tasks: tuple[str, ...], experts: int = 3, rank: int = 12, alpha: float | None = None, targets: str = ".*", std: float = 0.02
) -> Method:
    """`experts` B's on an A of `rank`: 3 of 12 have the parameters of one LoRA of rank 24 in a square layer; `std` of the router's start.

    Raises ValueError for a router that starts at zero.
    """
    if std <= 0:
        raise ValueError(f"hydralora: std = {std}; with a router that starts at zero the experts would stay identical")
    bank = tuple(Expert(f"e{i}", rank, alpha) for i in range(experts))
    options = {"level": "token", "task_input": False, "std": std}
    plan = LayerPlan(bank, targets=targets, bank="shared_down", router="soft", router_options=options)
    stage = Stage("joint", tasks, ("expert:*", "bank", "router", *HEADS))
    return Method("hydralora", (Member("unified", tasks, (stage,), plan),))
