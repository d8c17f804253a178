"""What becomes a graph: a copy of the model that reads one text as a row, its mixtures written with fewer products. It shares the weights.

A trace follows tensors and takes Python's numbers for constants, so nothing here asks a length for its value.
Shapes: as in `core.routing` with S = 1, so x is (1, L, D); O features of a layer's output, H heads, d features per head.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from twofold.backbone.load import quietly
from twofold.backbone.packed import no_mask
from twofold.core.inject import mixtures
from twofold.core.layer import MixtureLinear
from twofold.core.routing import Batch, current, running

if TYPE_CHECKING:
    from twofold.backbone.backbone import Backbone

NAME = "twofold_row"
EXAMPLE = 12
"""Tokens of the text that is traced; any number above one."""


class Row(Batch):
    """The pass of one text of whatever length."""

    def __init__(self, task: str) -> None:
        super().__init__(task, (1,))

    def pool(self, x: Tensor) -> Tensor:
        return x.mean(1)

    def spread(self, weight: Tensor, level: str) -> Tensor:
        return weight.unsqueeze(1) if level == "sequence" else weight


class JoinedLinear(nn.Module):
    """A `MixtureLinear` for one task: y = [W, s·B] [x; g ⊙ A x], which is one product less and no sum. Where g is constant, it is folded.

    A bank is asked for its matrices by what it does to unit vectors, so any bank that is linear in x and in z will do.
    """

    weight: Tensor
    bias: nn.Parameter | None
    down_RD: Tensor
    expert_R: Tensor

    def __init__(self, mixture: MixtureLinear, task: str) -> None:
        super().__init__()
        self.experts = mixture.roster.visible((task,))
        self.key, self.layer, self.router = mixture.key, mixture.layer, mixture.router
        weight_OD: Tensor = mixture.linear.get_parameter("weight").detach()
        self.bias = getattr(mixture.linear, "bias", None)
        constant_E = mixture.router.constant(task, self.experts)
        self.constant = constant_E is not None
        if constant_E is not None:
            self._keep("weight", weight_OD + mixture.bank.delta(constant_E, self.experts))
            return
        unit_EE = torch.eye(len(self.experts))
        self._keep("down_RD", mixture.bank.down(torch.eye(weight_OD.shape[1]), self.experts).T.contiguous())
        unit_RR = torch.eye(len(self.down_RD))
        zeros_RO = torch.zeros(len(unit_RR), len(weight_OD))
        up_ERO = torch.stack([mixture.bank.up(zeros_RO.clone(), unit_RR, unit_EE[e : e + 1], self.experts) for e in range(len(unit_EE))])
        self._keep("expert_R", up_ERO.abs().sum(-1).argmax(0))
        self._keep("weight", torch.cat([weight_OD, up_ERO.sum(0).T], 1))

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor)  # a plain attribute would be a constant of the trace, and PyTorch never forgets one

    def forward(self, x: Tensor) -> Tensor:
        if self.constant:
            return F.linear(x, self.weight, self.bias)
        batch, z = current(), F.linear(x, self.down_RD)
        weight = batch.route(self.key, self.layer, self.experts, lambda: self.router(x, z, batch, self.experts))
        return F.linear(torch.cat([x, z * weight.index_select(-1, self.expert_R)], -1), self.weight, self.bias)


def attend_row(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 (always None: there is one text)
    dropout: float = 0.0,  # noqa: ARG001 (a graph is for inference)
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention function for one row: query (1, H, L, d) → (1, L, H, d). Raises ValueError for a soft cap."""
    if softcap is not None:
        raise ValueError("its attention scores are capped")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    groups = int(query.shape[1]) // int(key.shape[1])
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mask = None
    if sliding_window is not None:
        at = torch.arange(query.shape[2])
        mask = (at[:, None] - at[None, :]).abs() < sliding_window
        mask = mask & (at[:, None] >= at[None, :]) if causal else mask
    out = F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal and mask is None, scale=scaling)
    return out.transpose(1, 2), None


class _Pass(nn.Module):
    """(ids (1, L), type ids (1, L) where the model has them) → hidden states (1, L, D)."""

    def __init__(self, backbone: Backbone, task: str) -> None:
        super().__init__()
        twin: Any = _twin(backbone.model)
        self.model = twin
        twin.set_attn_implementation(NAME)
        for layer in list(mixtures(twin)):
            if isinstance(layer.linear, nn.Linear) and layer.folded is None and layer.roster.visible((task,)):
                twin.set_submodule(layer.layer, JoinedLinear(layer, task))
        self.task, self.offset = task, backbone.offset
        self.inputs = {"use_cache": False} if hasattr(backbone.config, "use_cache") else {}
        self.inputs |= {"is_causal": False} if task.partition("/")[0] in backbone.both_ways else {}

    def forward(self, ids_1L: Tensor, *types_1L: Tensor) -> Tensor:
        position_1L = torch.arange(ids_1L.shape[1])[None] + self.offset
        inputs = {"input_ids": ids_1L, "position_ids": position_1L, **self.inputs}
        inputs |= {"token_type_ids": types_1L[0]} if types_1L else {}
        with running(Row(self.task)):
            hidden_1LD: Tensor = self.model(**inputs).last_hidden_state
        return hidden_1LD


@torch.no_grad()
def trace(backbone: Backbone, task: str) -> tuple[Any, tuple[Tensor, ...]]:
    """The task's pass in fp32 as a TorchScript function of one text's ids, and of its type ids where the model has types; and its example.

    Nothing of `backbone` changes. Raises whatever a model's code raises at tensors that it cannot follow.
    """
    AttentionInterface.register(NAME, attend_row)
    AttentionMaskInterface.register(NAME, no_mask)
    ids_1L = torch.arange(EXAMPLE)[None] % int(backbone.config.get_text_config().vocab_size)
    example = (ids_1L, torch.zeros_like(ids_1L)) if backbone.types else (ids_1L,)
    with warnings.catch_warnings(), quietly():
        warnings.simplefilter("ignore")  # of constants, which the comparison at export judges
        return torch.jit.trace(_Pass(backbone, task).eval(), example, check_trace=False, strict=False), example


def _twin(model: nn.Module) -> nn.Module:
    """A copy with modules and a config of its own around the same weights; around others, in fp32, where they are of another type."""
    shared = [*model.parameters(), *model.buffers()]
    if all(tensor.dtype == torch.float32 for tensor in shared if tensor.is_floating_point()):
        return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    return copy.deepcopy(model).float()
