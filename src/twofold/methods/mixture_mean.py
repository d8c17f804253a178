"""Our soft mixture with its own mean in the place of its router: trained as `moe_lora` is, constant per task afterwards.

The measure of whether looking at the input was worth it: what the constant mixture loses against `moe_lora`, which has the very
same experts and heads at the same settings. Each task's weights become the mean, over texts of its first training batches, of
what the router gave them in that layer; so the model folds and costs nothing at inference. A control of ours, after the finding
that routing helps training and can be averaged away afterwards (MHR-µ, Caccia et al. 2023, arXiv 2211.03831, which trains the mean on).
"""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage
from twofold.methods._changes import to_means


def build(
    *,
    tasks: tuple[str, ...],
    experts: tuple[str, ...] = ("embedding", "reranking", "shared"),
    rank: int = 8,
    alpha: float | None = None,
    targets: str = ".*",
    scope: str = "linear",
    batches: int = 8,
) -> Method:
    """`experts` of `rank` each, `alpha`, `targets` and `scope` as for `moe_lora`; `batches`: so many of each task make the mean."""
    if batches < 1:
        raise ValueError(f"mixture_mean: batches {batches}; use 1 or more")
    plan = LayerPlan(tuple(Expert(name, rank, alpha) for name in experts), targets=targets, router="soft", scope=scope)
    stage = Stage("joint", tasks, ("expert:*", "router", *HEADS))
    return Method("mixture_mean", (Member("unified", tasks, (stage,), plan, after=to_means(tasks, batches)),))
