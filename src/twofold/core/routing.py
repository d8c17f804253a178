"""What a layer may know about a pass (`Batch`), what a router decides (`Routing`), and the two interfaces.

Shapes: S segments (texts or pairs), T tokens of a packed stream, L tokens of a padded row, E experts a pass sees,
R = ΣR_e ranks of those experts, D features. A packed input is (1, T, D), a padded one (S, L, D).
"""

from __future__ import annotations

import copy
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Made = TypeVar("Made")


class Routing(NamedTuple):
    """One layer's decision for one pass: the only thing that losses and probes read."""

    layer: str
    experts: tuple[str, ...]
    tasks: tuple[str, ...]  # one task for all segments, or one per segment
    weight: Tensor  # (1, E) where it depends on the task only, (S, E) per segment, or (1, T, E) per token
    level: str  # "task", "sequence" or "token"
    score: Tensor | None = None  # what the weights were made from, in their shape, where the router scores
    z: Tensor | None = None  # (1, T, R), the experts' low-rank states; only where gradients are kept


class Decision(NamedTuple):
    """What a router says of one pass; fields as in `Routing`."""

    weight: Tensor
    level: str
    score: Tensor | None = None


@dataclass(frozen=True)
class Roster:
    """Which experts exist, in order, and which each task sees: what it does not see it never computes, so adding one moves no bit."""

    experts: tuple[str, ...]
    sees: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        for task, names in {"": self.experts, **self.sees}.items():
            if not set(names) <= set(self.experts) or len(set(names)) < len(names):
                raise ValueError(f"task {task!r} names {list(names)}; the experts are {list(self.experts)}, each once")

    def visible(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """The experts that any of `tasks` sees, in the roster's order. Raises KeyError for an unknown task."""
        if unknown := [task for task in tasks if task not in self.sees]:
            raise KeyError(f"unknown task {unknown[0]!r}: this model knows {sorted(self.sees)}")
        return tuple(name for name in self.experts if any(name in self.sees[task] for task in tasks))

    def mask(self, batch: Batch, experts: tuple[str, ...], level: str) -> Tensor | None:
        """True where a segment's task sees an expert: (S, E), or per token; None where every segment sees all of `experts`."""
        rows = [[name in self.sees[task] for name in experts] for task in batch.tasks]
        if all(all(row) for row in rows):
            return None
        seen_SE = torch.tensor(rows, device=batch.device)
        return batch.spread(seen_SE, "sequence") if level == "token" else seen_SE


class Batch:
    """One pass: its task or tasks (none: the bare model), where its segments lie, and what the routers decided so far.

    `lengths`: tokens per segment. With `mask_SL`, True on real tokens, the input is padded; without it is one packed stream.
    """

    def __init__(
        self, tasks: str | Sequence[str], lengths: Sequence[int], mask_SL: Tensor | None = None, device: torch.device | None = None
    ) -> None:
        names = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        if len(names) not in (0, 1, len(lengths)):
            raise ValueError(f"{len(names)} tasks for {len(lengths)} segments: give one, one per segment, or none")
        self.tasks = names[:1] if len(set(names)) == 1 else names
        self.lengths, self.mask_SL = tuple(lengths), mask_SL
        self.device = device if mask_SL is None else mask_SL.device
        self.length_S = torch.tensor(self.lengths, device=self.device)
        self.segment_T = torch.arange(len(self.lengths), device=self.device).repeat_interleave(self.length_S, output_size=sum(self.lengths))
        self.routings: dict[str, Routing] = {}
        self.tables: dict[str, Routing] = {}  # of what goes through layers beside the texts
        self.decided: dict[str, Any] = {}  # what `once` made, and what a router keeps for those of later layers

    def pool(self, x: Tensor) -> Tensor:
        """Mean over each segment's tokens: (1, T, D) or (S, L, D) → (S, D)."""
        if len(self.lengths) == 1 and self.mask_SL is None:  # one query: each operation counts
            return x.mean(1)
        if self.mask_SL is None:
            total_SD = x.new_zeros(len(self.lengths), x.shape[-1]).index_add(0, self.segment_T, x[0])
        else:
            total_SD = (x * self.mask_SL.unsqueeze(-1)).sum(1)
        return total_SD / self.length_S.unsqueeze(1)

    def spread(self, weight: Tensor, level: str) -> Tensor:
        """A routing's weight in a shape that multiplies the tokens of this pass."""
        if level != "sequence" or (len(self.lengths) == 1 and self.mask_SL is None):
            return weight
        return weight.index_select(0, self.segment_T).unsqueeze(0) if self.mask_SL is None else weight.unsqueeze(1)

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """What is made once in a pass and then known to all layers."""
        if key not in self.decided:
            self.decided[key] = make()
        found: Made = self.decided[key]
        return found

    def route(
        self, key: str, layer: str, experts: tuple[str, ...], decide: Callable[[], tuple[Any, ...]], z: Tensor | None = None
    ) -> Tensor:
        """The weight for `layer`, decided once per `key` (a layer, a block or the model), recorded, spread over tokens.

        The record holds real tokens only, in the order of a packed stream, also where the input is padded.
        """
        weight, level, score = self.once(key, lambda: Decision(*decide()))
        real: Callable[[Tensor], Tensor] = lambda x: x if self.mask_SL is None else x[self.mask_SL][None]  # noqa: E731
        kept = real if level == "token" else lambda each: each
        states = real(z) if z is not None and torch.is_grad_enabled() else None
        self.routings[layer] = Routing(layer, experts, self.tasks, kept(weight), level, None if score is None else kept(score), states)
        return self.spread(weight, level)

    def of(self, x: Tensor) -> Batch:
        """The batch of a layer's input: this one, or one of its own for the table of positions (1, T, D) that DeBERTa sends through."""
        if self.mask_SL is None or x.shape[:2] == self.mask_SL.shape:
            return self
        table = Batch(self.tasks, x.shape[1:2], device=self.device)
        table.routings = self.tables
        return table

    def replay(self) -> Batch:
        """The batch as it stands now, for the recomputation of a checkpointed block: what the block itself decides is decided again."""
        twin = copy.copy(self)
        twin.routings, twin.decided = {}, dict(self.decided)
        return twin


_current: ContextVar[Batch | None] = ContextVar("twofold_batch", default=None)


def current() -> Batch:
    """The batch of the pass that this thread runs. Raises RuntimeError outside of one."""
    batch = _current.get()
    if batch is None:
        raise RuntimeError("a mixture layer was called outside a pass: call the model with task=…, not its backbone")
    return batch


@contextmanager
def running(batch: Batch) -> Iterator[Batch]:
    """Makes `batch` the current one; a ContextVar, so threads with different tasks never meet."""
    token = _current.set(batch)
    try:
        yield batch
    finally:
        _current.reset(token)


def checkpoint_contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """`context_fn` for `torch.utils.checkpoint`: the recomputation sees the batch of its own pass, not the latest one."""
    batch = _current.get()
    return nullcontext(), (nullcontext() if batch is None else running(batch.replay()))


def generator(seed: int, *names: str) -> torch.Generator:
    """A random generator that depends on the seed and the names only: the same layer starts the same in every method."""
    return torch.Generator().manual_seed(zlib.crc32("/".join((str(seed), *names)).encode()) + (seed << 32) % 2**62)


class Router(nn.Module, ABC):
    """Says how much each expert counts."""

    @abstractmethod
    def forward(self, x: Tensor, z: Tensor, batch: Batch, experts: tuple[str, ...]) -> tuple[Tensor, str] | Decision:
        """x: the layer's input, z: the experts' low-rank states (…, R) → (weight, level) in fp32, and scores if a loss may want them."""

    def constant(self, task: str, experts: tuple[str, ...]) -> Tensor | None:  # noqa: ARG002
        """(E,) weights where they depend on nothing but the task, so that they fold; None, as here, where they look at the input."""
        return None


class Bank(nn.Module, ABC):
    """The low-rank updates of one layer, stored per expert, stacked when used."""

    @abstractmethod
    def down(self, x: Tensor, experts: tuple[str, ...]) -> Tensor:
        """(…, d_in) → (…, R)."""

    @abstractmethod
    def up(self, y: Tensor, z: Tensor, weight: Tensor, experts: tuple[str, ...]) -> Tensor:
        """y (N, d_out), changed in place, plus the experts' updates from z (…, R), mixed by weight (…, E); N tokens in all."""

    @abstractmethod
    def delta(self, weight_E: Tensor, experts: tuple[str, ...]) -> Tensor:
        """(d_out, d_in): the mixed update as one matrix."""
