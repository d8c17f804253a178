"""Methods: ways of training the tasks, ours and every baseline. One file each; the file's name is the method's name.

A method is a set of members (one for a unified model, two for two specialists), each a layer plan and a list of stages
over the same layer, loop and data, so that a difference in score is a difference of method and not of implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from twofold.core.inject import LayerPlan
from twofold.model.unified import UnifiedModel
from twofold.tasks import RoutingLoss

Gradients = Mapping[str, Tensor]
"""Parameter name → gradient of one task."""
Combine = Callable[[Sequence[Gradients]], Gradients]
"""How the tasks' gradients become one (their sum if nothing is said): PCGrad and its kin."""
AfterStep = Callable[[nn.Module, int], None]
"""(model, step) after every optimiser step: lowering a temperature, or whatever needs nothing but the model."""
Total = Callable[[Tensor], Tensor]
"""Adds up a tensor over all processes."""


class Companion:
    """What goes along with a stage and changes while it trains: balances, task weights, growth. This one does nothing of its own.

    It begins with the stage, of `steps` steps. `tensors` are changed in place and keep their names and shapes: they are saved
    with every checkpoint and put back, so that training goes on bit for bit. Over several processes every process has one, which
    must stay the same in all: what is counted per process goes through `total`.
    """

    combines = False
    """Whether the tasks' gradients are kept apart until `combine` makes one of them."""

    def __init__(self, stage: Stage, model: nn.Module, steps: int, total: Total) -> None:
        self.stage, self.model, self.steps, self.total = stage, model, steps, total
        self.combines = self.combines or stage.combine is not None
        self.tensors: dict[str, Tensor] = {}

    def auxiliary(self, task: str) -> RoutingLoss | None:  # noqa: ARG002
        """A loss on what the routers decided in each pass of `task` with a gradient; it may take notes."""
        return self.stage.auxiliary

    def combine(self, gradients: Mapping[str, Gradients], losses: Mapping[str, float]) -> Gradients:  # noqa: ARG002
        """Task → its gradients and its loss, both of all processes → the gradient of the step."""
        assert self.stage.combine is not None
        return self.stage.combine(list(gradients.values()))

    def after_step(self, done: int, again: Callable[[], Mapping[str, float]]) -> None:
        """After `done` steps of the stage. `again()`: the losses on the same batches at the new weights, by a further forward pass."""


MakeCompanion = Callable[["Stage", nn.Module, int, Total], Companion]

Batches = Callable[[str, int], Sequence[Any]]
"""(task, step) → the examples that the task learns from in that step, of the tasks that some stage trains."""
Change = Callable[[UnifiedModel, Batches], None]
"""What is done to a model, in place, without training it: other routers over its experts, constants in the place of a router, a merge.

It depends on the model and on what it is given alone, draws no random numbers but from a generator of its own, and so gives
the same again when a killed trial goes on."""


@dataclass(frozen=True)
class Stage:
    """One phase of training: which tasks it learns from, what it trains, and how.

    Every optimiser step carries one batch of every task of the stage.
    """

    name: str
    tasks: tuple[str, ...]
    trains: tuple[str, ...]
    """Patterns over parameter groups: `expert:*`, `bank` (what experts share), `router`, `head:*`, `backbone`."""
    share: float = 1.0
    """Of the trial's steps, relative to the other stages' shares; above 0."""
    combine: Combine | None = None
    auxiliary: RoutingLoss | None = None
    after_step: AfterStep | None = None
    companion: MakeCompanion = Companion
    """Made when the stage begins, for what needs more than those three functions: a memory, or several tasks at once."""

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise ValueError(f"stage {self.name!r}: share {self.share}; it must be above 0")


@dataclass(frozen=True)
class Member:
    """One model of a method: its experts, its stages in order (each goes on from the one before), and the tasks that it serves.

    Raises ValueError for a stage that learns no task, or one that the member does not serve.
    """

    name: str
    serves: tuple[str, ...]
    stages: tuple[Stage, ...]
    plan: LayerPlan = field(default_factory=LayerPlan)
    """Its experts; where the trial starts from a trained model, those that are added to it."""
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Task → the experts of the model it starts from that it sees besides; see `model.grow.Growth`."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Task → options of its `build` that belong to the method: its losses, its form. What the trial's config says counts more."""
    both_ways: tuple[str, ...] = ()
    """Tasks in whose passes a causal backbone attends both ways; an encoder always does."""
    merge: int = 0
    """How many checkpoints of its training's second half become one by spherical interpolation at the end; 0: none."""
    learns: tuple[str, ...] = ()
    """Tasks that it only learns from, such as a language model's before the others: the model that is saved does not do them."""
    before: Change | None = None
    """Done once to the model that the member starts from, before its first stage."""
    after: Change | None = None
    """Done once to the trained model, after its last stage; dev, evaluation and the saved folder see what it leaves."""

    def __post_init__(self) -> None:
        for stage in self.stages:
            if not stage.tasks or not set(stage.tasks) <= {*self.serves, *self.learns}:
                raise ValueError(f"stage {stage.name!r} learns {stage.tasks}; member {self.name!r} serves {(*self.serves, *self.learns)}")


@dataclass(frozen=True)
class Method:
    """A way of training all tasks. The members serve every task exactly once; raises ValueError where two serve the same."""

    name: str
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if len(self.serves) != len(set(self.serves)):
            raise ValueError(f"method {self.name!r}: a task is served by two members: {self.serves}")

    @property
    def serves(self) -> tuple[str, ...]:
        """The tasks that the members do."""
        return tuple(task for member in self.members for task in member.serves)

    @property
    def learns(self) -> tuple[str, ...]:
        """The tasks that some member only learns from."""
        return tuple(dict.fromkeys(task for member in self.members for task in member.learns))


HEADS = ("head:*",)
"""What every stage trains besides its experts: the heads of its tasks."""


def expert_of(task: str) -> str:
    """The name of a task's own expert."""
    return {"retrieve": "embedding", "rerank": "reranking"}.get(task, task)
