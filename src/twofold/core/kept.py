"""What is made of parameters: anew while they learn, once where nothing changes them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """One module's cache: matrices put side by side, casts of them. A copy of the module starts without."""

    def __init__(self) -> None:
        self.made: dict[Hashable, tuple[Sequence[nn.Parameter], object, Made]] = {}

    def __reduce__(self) -> tuple[type[Kept[Made]], tuple[()]]:
        return type(self), ()

    def get(self, key: Hashable, leaves: Callable[[], Sequence[nn.Parameter]], training: bool, make: Callable[[], Made]) -> Made:
        """`make()`, or what it gave for `key` before, if the parameters `leaves()` are as they were: none was written or moved.

        Never kept in `training` nor where one of them may be asked for a gradient: a fused optimiser changes them unnoticed.
        """
        if training or (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves())):
            self.made.clear()
            return make()
        found = self.made.get(key)
        if found is None or [(each.data_ptr(), each._version) for each in found[0]] != found[1]:
            with torch.inference_mode(False), torch.no_grad():
                self.made[key] = found = (own := leaves(), [(each.data_ptr(), each._version) for each in own], make())
        return found[2]
