"""Classification: one label for a text, by a linear head on its unit vector, trained with cross-entropy.

Shapes: N texts, D features, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold.backbone.packed import Pack
from twofold.backbone.tokens import TextTokens
from twofold.records import Labelled
from twofold.tasks import Encoder, RoutingLoss, StepContext, StepResult, Task, run_chunks

READS = Labelled


class Guess(NamedTuple):
    """A label and how likely the model holds it."""

    label: str
    probability: float


class ClassifyTask(Task[Labelled]):
    """`labels` in the order of the head's rows."""

    def __init__(self, name: str, width: int, labels: tuple[str, ...], smoothing: float) -> None:
        super().__init__(name)
        self.labels, self.smoothing = labels, smoothing
        self.place = {label: i for i, label in enumerate(labels)}
        self.linear = nn.Linear(width, len(labels))
        nn.init.zeros_(self.linear.weight)  # all labels equally likely at first, and equal starts for every method
        nn.init.zeros_(self.linear.bias)

    @property
    def measure(self) -> str:
        return "accuracy"

    def pack(self, tokens: TextTokens, items: Sequence[str]) -> Pack:
        """Texts, without a prompt."""
        return tokens.texts(items)

    def predict(self, encoder: Encoder, pack: Pack, token_budget: int) -> list[Guess]:
        """The most likely label of each text."""
        best = self.logits(encoder, pack, token_budget)[0].softmax(-1).max(-1)
        return [Guess(self.labels[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

    def logits(self, encoder: Encoder, pack: Pack, token_budget: int, auxiliary: RoutingLoss | None = None) -> tuple[Tensor, Tensor | None]:
        """(N, C) in fp32 in the caller's order, and the auxiliary loss of the passes if there is one."""

        def head(hidden_TD: Tensor, chunk: Pack) -> Tensor:
            vector_ND = F.normalize(encoder.backbone.pool(hidden_TD, chunk), dim=-1)
            root = vector_ND.shape[-1] ** 0.5  # features of unit vectors are small: back to about 1 each
            return F.linear(vector_ND * root, self.linear.weight.float(), self.linear.bias.float())

        return run_chunks(encoder, pack, self.name, token_budget, head, auxiliary)

    def step(self, examples: Sequence[Labelled], context: StepContext) -> StepResult:
        """The mean cross-entropy over all texts of all processes. Raises ValueError for a label that the head does not have."""
        if unknown := [example for example in examples if example.label not in self.place]:
            raise ValueError(
                f"{unknown[0].id}: label {unknown[0].label!r} is none of the {len(self.labels)} that {self.name!r} was made for"
            )
        pack = self.pack(context.encoder.tokens, [example.text for example in examples])
        logit_NC, extra = self.logits(context.encoder, pack, context.token_budget, context.auxiliary)
        label_N = torch.tensor([self.place[example.label] for example in examples], device=logit_NC.device)
        loss = F.cross_entropy(logit_NC, label_N, label_smoothing=self.smoothing)
        share = loss * context.weight / context.world.size
        context.backward(share if extra is None else share + extra / context.world.size)
        return StepResult(float(loss.detach()), pack.tokens, pack.truncated)


def build(*, name: str = "classify", width: int, labels: Sequence[str] = (), smoothing: float = 0.0) -> ClassifyTask:
    """`labels`: the classes, in the order of the head's rows (training fills them in from its data); `smoothing` of the labels.

    Raises ValueError for fewer than two labels, or one that is there twice."""
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"{name}: labels {list(labels)[:4]}; give two or more, each once")
    return ClassifyTask(name, width, tuple(labels), smoothing)
