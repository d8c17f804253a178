"""Frozen trained specialists, gated by a hidden state from before them (X-LoRA, Buehler and Buehler 2024, arXiv 2402.07148).

`start` is a model whose experts were trained apart, such as `hard_lora`'s. Experts and heads stay as they are, and only the
classifier learns. The paper reads the last hidden state of a second pass without experts; here it is the input of block `after`
of the only pass (see `routers/xlora.py`), so that a forward pass costs what a mixture costs. PEFT's own is timed in bench/mixture.py.
"""

from __future__ import annotations

from twofold.methods import Member, Method, Stage
from twofold.methods._changes import route_over

NEEDS_START = "hard_lora"


def build(*, tasks: tuple[str, ...], after: int = 0, hidden: int = 0, level: str = "token", temperature: float = 1.0) -> Method:
    """`after`: so many blocks run without experts first; `hidden` units of the classifier (0: linear); `level` token or sequence."""
    options = {"after": after, "hidden": hidden, "level": level, "temperature": temperature}
    stage = Stage("gates", tasks, ("router",))
    return Method("xlora", (Member("unified", tasks, (stage,), before=route_over("xlora", options, "block")),))
