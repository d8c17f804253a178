"""Training goes on with what a trained model has (`start = MODEL`): all its experts, or only the shared one, and no new one.

What `add_expert` is to be compared with: older vectors change, and so may what the model knew.
"""

from __future__ import annotations

from twofold.methods import HEADS, Member, Method, Stage

NEEDS_START = True


def build(*, tasks: tuple[str, ...], experts: tuple[str, ...] = ("*",), router: bool = True) -> Method:
    """`experts`: which go on learning, by name or pattern; `router`: whether the routers do."""
    trains = (*(f"expert:{name}" for name in experts), *(("router",) if router else ()), *HEADS)
    return Method("continued", (Member("unified", tasks, (Stage("continued", tasks, trains),)),))
