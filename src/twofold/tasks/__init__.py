"""Tasks: what the model is asked to do. One file each; the file's name is the task's name.

A task says how its inputs are made, how a score comes out, what its loss is, and which measure tells whether it is
getting better. It owns its head, if it has one. It never sees a router, a method or the loop.

One kind of task may be there several times under names of its own, `KIND:VARIANT` (`retrieve:legal`, `classify:banking77`):
the same file, other data, another head, and whichever experts the plan lets it see. A file that learns from something else
than examples of ranking says so by `READS`, such as `READS = Labelled`.

A task may also take another form: its option `form` names the file that it is made from in place of its kind's. `rerank` with
`form = "listwise"` is still the task that reranks, is measured and is tuned; what is behind it is `tasks/listwise.py`.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold import plugins
from twofold.backbone.backbone import Backbone
from twofold.backbone.packed import Pack, split
from twofold.backbone.tokens import TextTokens
from twofold.core.routing import Routing
from twofold.records import Example

Sample = TypeVar("Sample", contravariant=True)
"""What a task learns from: `Example`, `Labelled`."""
Item = TypeVar("Item")


def kind_of(task: str) -> str:
    """`retrieve:legal` → `retrieve`: the file that it is made from."""
    return task.partition(":")[0]


def variant_of(task: str) -> str:
    """`retrieve:legal` → `legal`; empty for the kind itself."""
    return task.partition(":")[2]


def task_name(kind: str, variant: str) -> str:
    """The reverse of both."""
    return f"{kind}:{variant}" if variant else kind


def reads(task: str) -> type:
    """What a task learns from: its file's `READS`, `Example` unless said. Raises ConfigError for a task that there is not."""
    found: type = getattr(plugins.load("tasks", kind_of(task)), "READS", Example)
    return found


def form_of(task: str, options: Mapping[str, Any]) -> str:
    """The file that a task with these options is made from."""
    return str(options.get("form", kind_of(task)))


def build_task(task: str, options: Mapping[str, Any], width: int, head_of: HeadOf | None = None) -> Task[Any]:
    """The task on vectors of `width` features, with a fresh head. Raises ConfigError for a name or option that there is not."""
    own = {key: value for key, value in options.items() if key != "form"}
    built: Task[Any] = plugins.build_plugin("tasks", form_of(task, options), own, name=task, width=width, head_of=head_of)
    return built


class Encoder(NamedTuple):
    """What a task needs of a model."""

    backbone: Backbone
    tokens: TextTokens


class StepResult(NamedTuple):
    """What one task's share of an optimiser step did."""

    loss: float
    """Mean loss over this process's examples, or over all processes' where they meet in the loss."""
    tokens: int
    """Tokens that went through the backbone with a gradient."""
    truncated: int
    """Texts that were cut."""


@dataclass(frozen=True)
class World:
    """The processes that train together. `gather` maps an equally shaped tensor of every process to all of them in order,
    without gradient; alone it returns its input."""

    rank: int = 0
    size: int = 1
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor


HeadOf = Callable[[Sequence[str]], Tensor]
"""Words → the rows (N, D) that the backbone's language model head has for them: what a task's own head may start from."""
RoutingLoss = Callable[[dict[str, Routing]], Tensor]
"""An auxiliary loss on what the routers decided in one pass."""


@dataclass(frozen=True)
class StepContext:
    """What a task's step works with, besides its examples."""

    encoder: Encoder
    backward: Callable[[Tensor], None]
    """Adds the gradient of a loss to `.grad`; nothing where it has none, as where no expert learns that the texts reach."""
    world: World = field(default_factory=World)
    token_budget: int = 8192
    """About how many tokens go through the backbone at a time."""
    weight: float = 1.0
    """Factor of the task's loss."""
    auxiliary: RoutingLoss | None = None
    """Added to the loss, as its mean over the texts; not multiplied by `weight`."""


class Packed(Protocol):
    """What a task makes of its items: a `Pack`, or several."""

    @property
    def truncated(self) -> int:
        """How many texts were cut."""


class Task(nn.Module, ABC, Generic[Sample]):
    """One job of the model, under the name by which the experts know it."""

    reads_lists: ClassVar[bool] = False
    """Whether a document's score depends on the query's other candidates. An item is then a query and all of its documents, the
    first stage's best first; else it is one text or one pair."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    @abstractmethod
    def pack(self, tokens: TextTokens, items: Sequence[Any]) -> Packed:
        """What the task is asked about, tokenised: texts, pairs, or lists."""

    @abstractmethod
    def predict(self, encoder: Encoder, pack: Any, token_budget: int) -> list[Any]:
        """The task's answer to each item that `pack` was made from, in the caller's order; called in inference mode."""

    @abstractmethod
    def step(self, examples: Sequence[Sample], context: StepContext) -> StepResult:
        """Runs `examples` forward and backward; gradients are left in `.grad`.

        Summed over all processes they are the gradient of `weight` times the mean loss over all their examples.
        """

    @property
    @abstractmethod
    def measure(self) -> str:
        """What says how good the task is: the evaluation's row "dense" or "reranked", or "accuracy"."""

    @property
    def declares(self) -> Mapping[str, Any]:
        """What a result has to say of how the task was done, beyond the model's settings; JSON types."""
        return {}


def lists_of(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Pairs of query and document → (query, document, document, …); a query's pairs stand together."""
    return [(query, *(document for _, document in group)) for query, group in itertools.groupby(pairs, key=lambda pair: pair[0])]


def grouped(items: Sequence[Item], sizes: Sequence[int], budget: int) -> list[list[Item]]:
    """Neighbours put together up to about `budget`."""
    chunks = [(end - 1) // max(budget, 1) for end in itertools.accumulate(sizes)]
    pairs = zip(chunks, items, strict=True)
    return [[item for _, item in members] for _, members in itertools.groupby(pairs, key=lambda pair: pair[0])]


def unit_vectors(
    encoder: Encoder, pack: Pack, task: str | Sequence[str], token_budget: int, auxiliary: RoutingLoss | None = None
) -> tuple[Tensor, Tensor | None]:
    """Each text's pooled state (S, D), made unit length, in fp32 in the caller's order; and the auxiliary loss, as of `run_chunks`."""

    def head(hidden_TD: Tensor, chunk: Pack) -> Tensor:
        return F.normalize(encoder.backbone.pool(hidden_TD, chunk), dim=-1)

    return run_chunks(encoder, pack, task, token_budget, head, auxiliary)


def run_chunks(
    encoder: Encoder,
    pack: Pack,
    task: str | Sequence[str],
    token_budget: int,
    head: Callable[[Tensor, Pack], Tensor],
    auxiliary: RoutingLoss | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`head(hidden_TD, chunk)` → (S, …) over chunks of the pack, put together in the caller's order.

    `task`: one for all texts, one per text in the caller's order, or none, for the bare backbone.
    And the auxiliary loss, if there is one: the mean over the texts of what it is in each text's chunk.
    """
    outputs: list[Tensor] = []
    extras: list[Tensor] = []
    positions: list[int] = []
    for chunk, at in split(pack, token_budget):
        names = task if isinstance(task, str) or not task else [task[i] for i in at]
        if auxiliary is None:
            hidden_TD = encoder.backbone.states(chunk, names)
        else:
            hidden_TD, routings = encoder.backbone(chunk, names)
            extras.append(auxiliary(routings) * len(at))
        outputs.append(head(hidden_TD, chunk))
        positions.extend(at)
    back = torch.empty(len(positions), dtype=torch.long)
    back[torch.tensor(positions)] = torch.arange(len(positions))
    return torch.cat(outputs)[back.to(outputs[0].device)], torch.stack(extras).sum() / len(positions) if extras else None
