"""Texts to embed and pairs to score in one packed pass: what a server gathers from many requests.

A pass of several tasks computes every expert that any of them sees and masks the rest per segment, so that an answer does not
depend on its company beyond float rounding.
Shapes: S segments, L tokens of one, T tokens of all, D features.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from twofold.backbone.packed import Pack
from twofold.backbone.tokens import Ids
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.tasks import task_name
from twofold.tasks.rerank import RerankTask
from twofold.tasks.retrieve import RetrieveTask

Output: TypeAlias = NDArray[np.float32]
"""A text's unit vector (D,), or a pair's raw score ()."""


class Segment(NamedTuple):
    """One tokenised text or pair, and which task reads it."""

    model: UnifiedModel
    task: str
    prompt: str | None
    ids_L: Tensor
    types_L: Tensor
    part_L: Tensor

    @property
    def tokens(self) -> int:
        """L."""
        return len(self.ids_L)

    @property
    def lane(self) -> Hashable:
        """Segments of one lane may share a pass: the same weights, attention in the same directions, and one task where texts are padded,
        as such a backbone may have tables that belong to no text."""
        backbone = self.model.backbone
        return id(self.model), self.task in backbone.both_ways, backbone.packed or self.task


class Segments(NamedTuple):
    """What one request asks for."""

    rows: list[Segment]
    """In the caller's order."""
    truncated: int
    """How many texts or pairs were cut."""

    @property
    def tokens(self) -> int:
        """Of all of them."""
        return sum(row.tokens for row in self.rows)


def texts(system: System, given: Sequence[str] | Sequence[Ids], prompt: str | None = None) -> Segments:
    """Texts, or token ids of the model's own tokenizer, to be embedded. Raises ValueError for lone surrogates and unknown ids."""
    model = system.embedder
    words: list[str] = [text for text in given if isinstance(text, str)]
    pack = model.tokens.texts(words, prompt) if words else model.tokens.text_ids([list(ids) for ids in given], prompt)  # type: ignore[arg-type]
    return _segments(model, task_name("retrieve", system.variant), prompt, pack)


def pairs(system: System, given: Sequence[tuple[str, str]]) -> Segments:
    """Pairs to be scored. Raises ValueError for lone surrogates."""
    model = system.reranker
    return _segments(model, task_name("rerank", system.variant), None, model.tokens.pairs(given))


@torch.inference_mode()
def run(segments: Sequence[Segment]) -> list[Output]:
    """Every segment's vector or score, in fp32, by one pass. All are of one lane; the model is in eval mode."""
    model = segments[0].model
    pack = _joined(segments)
    hidden_TD = model.backbone.states(pack, _passes(segments))
    sizes_S = torch.tensor(pack.lengths, device=hidden_TD.device)
    found: dict[int, Output] = {}
    for task in dict.fromkeys(segment.task for segment in segments):
        mine = [segments[i].task == task for i in pack.order]
        mine_T = torch.repeat_interleave(torch.tensor(mine, device=hidden_TD.device), sizes_S, output_size=pack.tokens)
        own, at = _part(pack, mine, mine_T), [i for i, ours in zip(pack.order, mine, strict=True) if ours]
        module = model.tasks[task]
        if isinstance(module, RerankTask):
            values = module.read(model.backbone, hidden_TD[mine_T], own)
        else:
            values = F.normalize(model.backbone.pool(hidden_TD[mine_T], own), dim=-1)
        found.update(zip(at, values.float().cpu().numpy(), strict=True))
    return [np.asarray(found[i]) for i in range(len(segments))]


def _segments(model: UnifiedModel, task: str, prompt: str | None, pack: Pack) -> Segments:
    """The pack taken apart again. Raises ValueError for a task that the model does not do."""
    if task not in model.tasks:
        raise ValueError(f"this model was not made for {task!r}; it does {sorted(model.tasks)}")
    rows: list[Segment | None] = [None] * len(pack.order)
    parts = (tensor.split(list(pack.lengths)) for tensor in (pack.input_ids_T, pack.type_ids_T, pack.part_T))
    for i, ids_L, types_L, part_L in zip(pack.order, *parts, strict=True):
        rows[i] = Segment(model, task, prompt, ids_L, types_L, part_L)
    return Segments([row for row in rows if row is not None], pack.truncated)


def _joined(segments: Sequence[Segment]) -> Pack:
    """One stream, longest first."""
    order = tuple(sorted(range(len(segments)), key=lambda i: -segments[i].tokens))
    ids_T = torch.cat([segments[i].ids_L for i in order])
    types_T, part_T = torch.cat([segments[i].types_L for i in order]), torch.cat([segments[i].part_L for i in order])
    return Pack(ids_T, types_T, part_T, tuple(segments[i].tokens for i in order), order, 0)


def _part(pack: Pack, mine: Sequence[bool], mine_T: Tensor) -> Pack:
    """Some segments of a stream as a stream of their own; its caller's order is the stream's."""
    lengths = tuple(length for length, ours in zip(pack.lengths, mine, strict=True) if ours)
    kept_T = mine_T.to(pack.input_ids_T.device)
    ids_T, types_T, part_T = (tensor[kept_T] for tensor in (pack.input_ids_T, pack.type_ids_T, pack.part_T))
    return Pack(ids_T, types_T, part_T, lengths, tuple(range(len(lengths))), 0)


def _passes(segments: Sequence[Segment]) -> list[str]:
    """The name by which experts know each segment's pass. Queries of several domains need a look of the bare backbone first."""
    names = [segment.task for segment in segments]
    for task, prompt in dict.fromkeys((segment.task, segment.prompt) for segment in segments):
        module = segments[0].model.tasks[task]
        if isinstance(module, RetrieveTask):
            at = [i for i, segment in enumerate(segments) if (segment.task, segment.prompt) == (task, prompt)]
            model = segments[0].model
            found = module.passes(model.encoder, _joined([segments[i] for i in at]), prompt, model.token_budget)
            for place, i in enumerate(at):
                names[i] = found if isinstance(found, str) else found[place]
    return names
