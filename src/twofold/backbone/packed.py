"""The packed stream: texts of any length one after the other, and the attention that stays inside each of them.

Shapes: T tokens of the stream, S segments, H heads, d features per head. Segments lie sorted by length, so that equal
lengths are neighbours and attend as one dense batch: a slice of the stream, no gather and no scatter.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "twofold_packed"


@dataclass(frozen=True)
class Pack:
    """A batch of tokenised texts or pairs as one stream, longest first."""

    input_ids_T: Tensor
    type_ids_T: Tensor
    """0 for a text or a pair's first part, 1 for a pair's second."""
    part_T: Tensor
    """0 for the template's own tokens and a text's prompt, 1 for the text or a pair's query, 2 for a pair's document; a pair's
    prompts count to its texts."""
    lengths: tuple[int, ...]
    order: tuple[int, ...]
    """`order[i]` is the position in the caller's list of the i-th segment of the stream."""
    truncated: int
    """How many of the texts were cut."""

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.input_ids_T)

    @property
    def place_S(self) -> Tensor:
        """Where each text of the caller's list lies in the stream: the reverse of `order`."""
        return torch.tensor(self.order).argsort()

    def to(self, device: torch.device) -> Pack:
        """The same pack on another device."""
        ids_T, types_T, part_T = (tensor.to(device) for tensor in (self.input_ids_T, self.type_ids_T, self.part_T))
        return Pack(ids_T, types_T, part_T, self.lengths, self.order, self.truncated)


def make_pack(segments: Sequence[tuple[list[int], list[int], list[int]]], truncated: int = 0) -> Pack:
    """(ids, type ids, parts) of each text → one stream. Raises ValueError for no segments or an empty one."""
    if not segments or not all(ids for ids, _, _ in segments):
        raise ValueError("nothing to pack: give at least one text, each of at least one token")
    order = tuple(sorted(range(len(segments)), key=lambda i: -len(segments[i][0])))
    ids, types, parts = (torch.tensor(list(itertools.chain.from_iterable(segments[i][k] for i in order))) for k in range(3))
    return Pack(ids, types, parts, tuple(len(segments[i][0]) for i in order), order, truncated)


def split(pack: Pack, token_budget: int) -> list[tuple[Pack, tuple[int, ...]]]:
    """The pack in chunks of at most `token_budget` tokens (or one longer text), each with its texts' positions in the caller's list.

    A chunk's own order is the stream's order.
    """
    chunks: list[tuple[Pack, tuple[int, ...]]] = []
    start = begin = 0
    for i in range(len(pack.lengths)):
        end = begin + sum(pack.lengths[start : i + 1])
        if i + 1 == len(pack.lengths) or end + pack.lengths[i + 1] - begin > token_budget:
            lengths = pack.lengths[start : i + 1]
            ids_T, types_T, part_T = (tensor[begin:end] for tensor in (pack.input_ids_T, pack.type_ids_T, pack.part_T))
            chunks.append((Pack(ids_T, types_T, part_T, lengths, tuple(range(len(lengths))), 0), pack.order[start : i + 1]))
            start, begin = i + 1, end
    return chunks


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 (always None: `no_mask` below)
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention function: query (1, H, T, d) → (1, T, H, d), each segment by itself.

    `cu_seq_lens_q` (S + 1) are the segments' ends as for flash attention. Honours causal order, windows (|i − j| <
    `sliding_window`), soft caps, scaling and grouped key-value heads.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        raise ValueError("packed attention needs cu_seq_lens_q and max_length_q: call the backbone through twofold")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if query.is_cuda and torch.is_autocast_enabled("cuda"):  # rotary positions and norms leave fp32, which no fast kernel takes
        query, key, value = (tensor.to(torch.get_autocast_dtype("cuda")) for tensor in (query, key, value))
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if _has_varlen_kernel(query) and softcap is None and dropout == 0.0:
        return _attend_varlen(q, k, v, cu_seq_lens_q, max_length_q, scaling, causal, sliding_window).unsqueeze(0), None
    lengths = [len(q)] if len(cu_seq_lens_q) == 2 else cu_seq_lens_q.diff().tolist()  # one query: each operation counts
    groups = [(length, len(list(members))) for length, members in itertools.groupby(lengths)]
    sizes = [length * count for length, count in groups]
    out = []
    with _widened(q, k, v) as (q, k, v):
        for (length, count), *parts in zip(groups, *(torch.split(tensor, sizes) for tensor in (q, k, v)), strict=True):
            q_nHLd, k_nHLd, v_nHLd = (part.unflatten(0, (count, length)).transpose(1, 2) for part in parts)
            out.append(_attend_group(q_nHLd, k_nHLd, v_nHLd, scaling, causal, sliding_window, softcap, dropout))
    return (torch.cat(out) if len(out) > 1 else out[0]).unsqueeze(0).to(value.dtype), None


@contextmanager
def _widened(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors in at least fp32, which autocast then leaves alone, where a CPU keeps gradients; elsewhere as they are.

    Torch's backward of attention in half precision is up to ten times as slow there (short texts), and forward gains nothing.
    """
    if tensors[0].device.type != "cpu" or not torch.is_grad_enabled():
        yield tensors
        return
    with torch.autocast("cpu", enabled=False):
        yield tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def _attend_group(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, causal: bool, window: int | None, softcap: float | None, dropout: float
) -> Tensor:
    """(n, H, L, d) of n segments of equal length → (n·L, H, d)."""
    length = q.shape[2]
    mask = None
    if window is not None and window < length:
        at = torch.arange(length, device=q.device)
        mask = (at[:, None] - at[None, :]).abs() < window
        mask = mask & (at[:, None] >= at[None, :]) if causal else mask
    if softcap is None:
        whole = causal and mask is None and length > 1
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=whole, scale=scaling, enable_gqa=q.shape[1] != k.shape[1])
    else:
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        score = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        score = torch.tanh(score / softcap) * softcap
        if mask is None and causal:
            mask = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
        score = score if mask is None else score.masked_fill(~mask, torch.finfo(score.dtype).min)
        out = F.dropout(score.float().softmax(-1).to(v.dtype), dropout) @ v
    return out.transpose(1, 2).flatten(0, 1)


def _has_varlen_kernel(query: Tensor) -> bool:
    """Torch's variable-length kernel: CUDA from Ampere on, half precision, a head that it takes."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16) or query.shape[-1] > 256 or query.shape[-1] % 8:
        return False
    return _importable_varlen() and torch.cuda.get_device_capability(query.device) >= (8, 0)


@functools.cache
def _importable_varlen() -> bool:
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return False
    return "window_size" in inspect.signature(varlen.varlen_attn).parameters  # torch 2.10's has neither windows nor a scale


def _attend_varlen(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int, scaling: float | None, causal: bool, window: int | None
) -> Tensor:
    """(T, H, d) → (T, H, d) in one kernel."""
    from torch.nn.attention.varlen import varlen_attn

    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    back = -1 if window is None else window - 1
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(back, 0 if causal else back))
    return cast(Tensor, out)  # more than one tensor comes only where more is asked for


def no_mask(*_: Any, **__: Any) -> None:
    """Hugging Face's mask function for a packed stream: there is nothing to mask, segments never meet."""
    return


def register() -> None:
    """Makes `attn_implementation="twofold_packed"` known to transformers; harmless when repeated."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, no_mask)
