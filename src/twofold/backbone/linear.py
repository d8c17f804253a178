"""The backbone's own products: by the faster library in fp32, and without casting the same weights in every pass of mixed precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.core.kept import Kept
from twofold.core.product import linear

Product = Callable[[Tensor], Tensor]


class FastLinear(nn.Linear):
    """A linear layer that, under autocast and while it does not learn, keeps the cast of its weight beside it: half its size again, since
    autocast keeps no cast of what does not learn.

    Where no gradient is asked for, a CPU's is kept in the order in which the processor reads it: of a short text, casting and ordering
    take about a third of the time (docs/log.md).
    """

    kept: Kept[Product]

    def forward(self, input: Tensor) -> Tensor:
        kind = input.device.type
        if any(parameter.requires_grad for parameter in self._leaves()):
            self.kept.forget()  # a fused optimiser changes it unnoticed
            return linear(input, self.weight, self.bias)
        if not torch.is_autocast_enabled(kind):
            return linear(input, self.weight, self.bias)
        dtype, ordered = torch.get_autocast_dtype(kind), kind == "cpu" and not torch.is_grad_enabled() and orders()

        def make() -> Product:
            weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
            return _ordered(weight, bias) if ordered else lambda x: F.linear(x, weight, bias)

        key = (dtype, ordered, id(self.weight), id(self.bias))
        if key not in self.kept.made:  # one copy, not one of each kind
            self.kept.forget()
        return self.kept.get(key, self._leaves, False, make)(input.to(dtype))

    def _leaves(self) -> list[nn.Parameter]:
        return [each for each in (self.weight, self.bias) if isinstance(each, nn.Parameter)]


def speed_up(model: nn.Module) -> None:
    """Makes every plain linear layer of `model` a `FastLinear` in place; names, parameters and numbers stay. Harmless when repeated."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FastLinear
            cast(FastLinear, module).kept = Kept()


def _ordered(weight: Tensor, bias: Tensor | None) -> Product:
    """The product by oneDNN with the weight in the order that it wants; else it is put into that order in every product."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@functools.cache
def orders() -> bool:
    """Whether this build of torch and this processor have that product, for which there is no public name: asked once, by an example."""
    x, weight, bias = torch.ones(3, 5).bfloat16(), torch.eye(5)[:4].bfloat16(), torch.arange(4).bfloat16()
    try:
        with torch.inference_mode():
            fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
            return bool(fast) and torch.equal(_ordered(weight, bias)(x), F.linear(x, weight, bias))
    except (AttributeError, RuntimeError, TypeError):
        return False
