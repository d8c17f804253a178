"""MTL-LoRA: a shared A, a small matrix of each task, and shared B's mixed by learned weights of the task (arXiv 2410.09437).

y = W x + s Σ_e w_te B_e Λ_t A x, where Λ_t starts as the identity and w_t is a softmax at temperature .1 of learned scores. Nothing looks
at the input, so it folds. All B's start at zero on the same A, where equal weights would keep them identical for ever, so the scores start
apart, at random, by about the temperature (how the authors start them was not at hand). Weights sum to 1, as there.
"""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage


def build(
    *,
    tasks: tuple[str, ...],
    ups: int = 3,
    rank: int = 12,
    alpha: float | None = None,
    targets: str = ".*",
    temperature: float = 0.1,
) -> Method:
    """`ups` B's on an A of `rank`: 3 of 12 have the parameters of one LoRA of rank 24 in a square layer, and Λ's besides."""
    own = {task: tuple(f"{task}-{i}" for i in range(ups)) for task in tasks}
    bank = tuple(Expert(name, rank, alpha) for names in own.values() for name in names)
    options = {"temperature": temperature, "total": 1.0, "std": temperature}
    plan = LayerPlan(bank, sees=own, targets=targets, bank="task_transform", router="task_gate", router_options=options)
    stage = Stage("joint", tasks, ("bank", "router", *HEADS))
    return Method("mtl_lora", (Member("unified", tasks, (stage,), plan),))
