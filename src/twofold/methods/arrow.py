"""Trained specialists, routed by the main direction of each, without any training (Arrow, Ostapenko et al. 2024, arXiv 2405.11157).

`start` is a model whose experts were trained apart, such as `hard_lora`'s. The paper's library is of hundreds of LoRAs, of which a
token uses four; here every expert may count. See `routers/arrow.py`.
"""

from __future__ import annotations

from twofold.methods import Member, Method
from twofold.methods._changes import route_over

NEEDS_START = "hard_lora"


def build(*, tasks: tuple[str, ...], k: int = 3, temperature: float = 1.0) -> Method:
    """`k` experts for each token, at most all; `temperature` of the softmax over their scores."""
    before = route_over("arrow", {"k": k, "temperature": temperature}, "linear")
    return Method("arrow", (Member("unified", tasks, (), before=before),))
