"""Pre-training on the domain's documents, then a LoRA per task on what it gave (BSharedRAG-style, Guan et al. 2024, arXiv 2409.20075).

The backbone goes on learning its language model (`tasks/lm.py`), is frozen, and the tasks' LoRAs are trained on it, each by its own
task alone (hard routing by task: side by side is the same as one after the other). Without the first stage it is `hard_lora`. Differs
from the paper: the second task is reranking and not generation, and an encoder fills in masked tokens. Every other method can begin
from the same pre-trained backbone: `backbone.name = "trials/NAME/model"`. The trial needs `[tasks.lm]`, which no saved model does.
"""

from __future__ import annotations

from twofold.core.inject import Expert, LayerPlan
from twofold.methods import HEADS, Member, Method, Stage, expert_of
from twofold.tasks import kind_of

LEARNS = ("lm",)


def build(*, tasks: tuple[str, ...], before: float = 1 / 3, rank: int = 12, alpha: float | None = None, targets: str = ".*") -> Method:
    """`before`: the pre-training's share of the steps; `rank` of each task's LoRA (12 + 12 match a total of 24)."""
    language = tuple(task for task in tasks if kind_of(task) in LEARNS)
    served = tuple(task for task in tasks if task not in language)
    if not language or not served or not 0 < before < 1:
        raise ValueError(
            f"bshared: tasks {list(tasks)}, before {before}; it pre-trains by a task lm besides others, for a share of the steps"
        )
    own = {task: expert_of(task) for task in served}
    sees = {**{task: (name,) for task, name in own.items()}, **dict.fromkeys(language, ())}
    plan = LayerPlan(tuple(Expert(name, rank, alpha) for name in own.values()), sees=sees, targets=targets, router="by_task")
    stages = (
        Stage("pre-training", language, ("backbone",), share=before),
        Stage("adapters", served, ("expert:*", *HEADS), share=1 - before),
    )
    return Method("bshared", (Member("unified", served, stages, plan, learns=language),))
