"""What is made of parameters: anew while they learn, once where nothing changes them (nothing but by `.data`, which no one notices)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

Made = TypeVar("Made")
MOST = 8  # things kept for one module: passes of several tasks see other experts, and there are many subsets of them


class Kept(Generic[Made]):
    """One module's cache: matrices put side by side, casts of them. A copy of the module starts without."""

    def __init__(self) -> None:
        self.made: dict[Hashable, tuple[Sequence[nn.Parameter], object, Made]] = {}

    def forget(self, *_: object) -> None:
        """For `register_load_state_dict_post_hook`, since loading may put other parameters in these ones' place."""
        self.made.clear()

    def __reduce__(self) -> tuple[type[Kept[Made]], tuple[()]]:
        return type(self), ()

    def get(self, key: Hashable, leaves: Callable[[], Sequence[nn.Parameter]], training: bool, make: Callable[[], Made]) -> Made:
        """`make()`, or what it gave for `key` before, if the parameters `leaves()` are as they were: none was written or moved. Never kept
        in `training` nor where one of them may be asked for a gradient: a fused optimiser changes them unnoticed."""
        if training or (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves())):
            self.made.clear()
            return make()
        found = self.made.get(key)
        if found is None or _stand(found[0]) != found[1]:
            with torch.inference_mode(False), torch.no_grad():
                self.made[key] = found = (own := leaves(), _stand(own), make())
            for old in list(self.made)[:-MOST]:
                self.made.pop(old, None)
        return found[2]


def _stand(leaves: Sequence[nn.Parameter]) -> list[tuple[int, int]]:
    """Where parameters lie and how often each was written; what inference mode has loaded has no count."""
    return [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in leaves]
