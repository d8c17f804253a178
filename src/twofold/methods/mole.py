"""Frozen trained specialists and a gate per block on what they give (MOLE, Wu et al. 2024, arXiv 2404.13628).

`start` is a model whose experts were trained apart, such as `hard_lora`'s. Its experts and heads stay as they are, every task
sees every expert, and only the gates and their temperature learn, at a balance loss of weight 0.5. What the gate reads, and what
differs there, stands in `routers/mole.py`. The paper's expert is the whole block run with one LoRA; here the block's gate weighs
the updates of its linear layers, so that experts mix before the block's non-linear parts and not behind them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.core.routing import Routing
from twofold.methods import Member, Method, Stage
from twofold.methods._changes import route_over

NEEDS_START = "hard_lora"


def build(*, tasks: tuple[str, ...], alpha: float = 0.5, scope: str = "block", masked: tuple[str, ...] = ()) -> Method:
    """`alpha`: weight of the balance loss; `scope`: a gate per linear, block or model; `masked`: experts whose weight is 0.

    A trained model masks others, without training: `replan.set_router(model, masked=("reranking",))`.
    """

    def balance(routings: dict[str, Routing]) -> Tensor:
        return alpha * gate_balance(routings)

    stage = Stage("gates", tasks, ("router",), auxiliary=balance if alpha else None)
    before = route_over("mole", {"masked": masked}, scope)
    return Method("mole", (Member("unified", tasks, (stage,), before=before),))


def gate_balance(routings: dict[str, Routing]) -> Tensor:
    """−Σ_e log q_e with q_e the mean of expert e's weight over the gates of the model (equations 14 and 15), as the mean over the texts.

    Least, E log E, where all experts weigh the same. An expert that a text does not see, or that is masked, is left out.
    """
    gates = {id(routing.weight): routing.weight for routing in routings.values()}
    mean_SE = torch.stack(list(gates.values())).mean(0)
    return -torch.where(mean_SE > 0, mean_SE.clamp_min(1e-12).log(), 0.0).sum(-1).mean()
