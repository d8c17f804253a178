"""Reranking: a true cross-encoder reads query and document together and gives the pair one score.

The score starts warm: the cosine of the pair's query part and document part inside the joint pass, times a learned scale;
a learned head on both parts adds to it. A cold linear head on a retrieval-tuned encoder would learn very slowly. A decoder that was
asked a question answers it instead (head "yes_no"): how much more its last state speaks for yes than for no, as in Qwen3-Reranker
(arXiv 2506.05176); the direction starts at the language model's own and is then learned.
Shapes: P pairs, L documents of one query's list, D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold import losses
from twofold.backbone.packed import Pack
from twofold.backbone.tokens import TextTokens
from twofold.records import Example
from twofold.tasks import Encoder, HeadOf, RoutingLoss, StepContext, StepResult, Task, run_chunks

ListLoss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, ListLoss] = {"softmax": losses.listwise_softmax, "ranknet": losses.ranknet, "bce": losses.pointwise_bce}
TEACHER_LOSSES: dict[str, ListLoss] = {"margin_mse": losses.margin_mse, "kl": losses.listwise_kl}


class RerankTask(Task[Example]):
    """`head` is "cosine", "linear" (of both parts' features) or "both", their sum; or "yes_no", which starts at `answer_D`."""

    def __init__(
        self, name: str, width: int, *, head: str, loss: str, scale: float, teacher_weight: float, answer_D: Tensor | None = None
    ) -> None:
        super().__init__(name)
        if head not in ("cosine", "linear", "both", "yes_no"):
            raise ValueError(f"rerank head {head!r}: use 'cosine', 'linear', 'both' or 'yes_no'")
        if loss not in {*LOSSES, *TEACHER_LOSSES}:
            raise ValueError(f"rerank loss {loss!r}: use one of {sorted({*LOSSES, *TEACHER_LOSSES})}")
        if scale <= 0:
            raise ValueError(f"rerank scale {scale}: what the cosine is multiplied by is above 0")
        self.head, self.loss_name, self.teacher_weight = head, loss, teacher_weight
        self.log_scale = nn.Parameter(torch.tensor(scale).log()) if head in ("cosine", "both") else None
        self.linear = nn.Linear(2 * width, 1, bias=False) if head in ("linear", "both") else None
        if self.linear is not None:  # zero: the learned part starts silent
            nn.init.zeros_(self.linear.weight)
        self.answer_D = nn.Parameter(torch.zeros(width) if answer_D is None else answer_D.clone()) if head == "yes_no" else None
        # the other losses look at differences: a bias would have a gradient of rounding errors only, and Adam would follow them
        self.bias = nn.Parameter(torch.zeros(1)) if loss == "bce" else None

    @property
    def measure(self) -> str:
        return "reranked"

    def pack(self, tokens: TextTokens, items: Sequence[tuple[str, str]]) -> Pack:
        """Pairs of query and document."""
        return tokens.pairs(items)

    def predict(self, encoder: Encoder, pack: Pack, token_budget: int) -> list[float]:
        """The raw score of each pair."""
        found: list[float] = self.scores(encoder, pack, token_budget)[0].tolist()
        return found

    def score_hidden(self, query_PD: Tensor, document_PD: Tensor) -> Tensor:
        """(P,) raw scores from the mean hidden states of both parts of each pair."""
        query_PD, document_PD = F.normalize(query_PD.float(), dim=-1), F.normalize(document_PD.float(), dim=-1)
        score_P = query_PD.new_zeros(len(query_PD))
        if self.log_scale is not None:
            score_P = score_P + self.log_scale.exp() * (query_PD * document_PD).sum(-1)
        if self.linear is not None:
            root = query_PD.shape[-1] ** 0.5  # features of unit vectors are small: back to about 1 each
            features = torch.cat([query_PD * document_PD * root, (query_PD - document_PD).abs()], dim=-1) * root
            score_P = score_P + F.linear(features, self.linear.weight.float()).squeeze(-1)
        return score_P if self.bias is None else score_P + self.bias.float()

    def score_answer(self, last_PD: Tensor) -> Tensor:
        """(P,) raw scores from the last hidden state of each pair: the logit of yes minus that of no, when fresh."""
        assert self.answer_D is not None
        score_P = last_PD.float() @ self.answer_D.float()
        return score_P if self.bias is None else score_P + self.bias.float()

    def scores(self, encoder: Encoder, pack: Pack, token_budget: int, auxiliary: RoutingLoss | None = None) -> tuple[Tensor, Tensor | None]:
        """(P,) raw scores in fp32 in the caller's order, and the auxiliary loss of the passes if there is one."""

        def head(hidden_TD: Tensor, chunk: Pack) -> Tensor:
            if self.answer_D is not None:
                return self.score_answer(encoder.backbone.pool(hidden_TD, chunk, pooling="last"))
            return self.score_hidden(encoder.backbone.pool(hidden_TD, chunk, part=1), encoder.backbone.pool(hidden_TD, chunk, part=2))

        return run_chunks(encoder, pack, self.name, token_budget, head, auxiliary)

    def step(self, examples: Sequence[Example], context: StepContext) -> StepResult:
        """Lists are independent of one another, so each chunk of lists goes backward by itself and memory is bounded."""
        total, tokens, truncated = 0.0, 0, 0
        encoder, n = context.encoder, len(examples) * context.world.size
        for group in self._groups(encoder, examples, context.token_budget):
            pack = encoder.tokens.pairs([(example.query, text) for example in group for text in example.documents])
            score_P, extra = self.scores(encoder, pack, context.token_budget, context.auxiliary)
            lists = score_P.split([len(example.documents) for example in group])
            loss = torch.stack([self.list_loss(score_L, example) for score_L, example in zip(lists, group, strict=True)]).sum()
            share = loss * context.weight / n
            context.backward(share if extra is None else share + extra * len(group) / n)
            total, tokens, truncated = total + float(loss.detach()), tokens + pack.tokens, truncated + pack.truncated
        return StepResult(total / len(examples), tokens, truncated)

    def list_loss(self, score_L: Tensor, example: Example) -> Tensor:
        """One query's loss: by grades, by teacher scores where the loss asks for them, or both where `teacher_weight` > 0."""
        grade_L = torch.tensor(example.grades, device=score_L.device)
        teacher_L = None if example.teacher is None else torch.tensor(example.teacher, device=score_L.device)
        if self.loss_name in TEACHER_LOSSES:
            if teacher_L is None:
                raise ValueError(f"rerank loss {self.loss_name!r} needs teacher scores, and {example.query_id!r} has none")
            return TEACHER_LOSSES[self.loss_name](score_L, teacher_L)
        loss = LOSSES[self.loss_name](score_L, grade_L)
        return loss if teacher_L is None or not self.teacher_weight else loss + self.teacher_weight * losses.listwise_kl(score_L, teacher_L)

    def _groups(self, encoder: Encoder, examples: Sequence[Example], token_budget: int) -> list[list[Example]]:
        """Lists put together up to about the token budget, by an estimate: four characters are about a token."""
        longest = encoder.tokens.pair_length
        sizes = [sum(min(longest, 8 + (len(example.query) + len(text)) // 4) for text in example.documents) for example in examples]
        chunks = [(end - 1) // max(token_budget, 1) for end in itertools.accumulate(sizes)]
        pairs = zip(chunks, examples, strict=True)
        return [[example for _, example in members] for _, members in itertools.groupby(pairs, key=lambda pair: pair[0])]


def build(
    *,
    name: str = "rerank",
    width: int,
    head_of: HeadOf | None = None,
    head: str = "cosine",
    loss: str = "softmax",
    scale: float = 20.0,
    teacher_weight: float = 0.0,
    yes: str = "yes",
    no: str = "no",
) -> RerankTask:
    """`head`: cosine, linear, both or yes_no; `loss`: softmax, ranknet, bce (by grades), margin_mse, kl (by teacher scores);
    `scale`: what the cosine is multiplied by at the start; `teacher_weight`: adds that much of the KL to a teacher; `yes`, `no`: the
    words, one token each, whose logits the score of a fresh yes_no is the difference of."""
    answer_D = None
    if head == "yes_no" and head_of is not None:
        yes_D, no_D = head_of((yes, no))
        answer_D = yes_D - no_D
    return RerankTask(name, width, head=head, loss=loss, scale=scale, teacher_weight=teacher_weight, answer_D=answer_D)
