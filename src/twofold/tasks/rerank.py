"""Reranking: a true cross-encoder reads query and document together and gives the pair one score.

The score starts warm. Head "maxsim": inside the joint pass every query token looks for the document token nearest to it, and the
score is the mean of those cosines over the query's tokens, each with a learned weight that starts at 1, times a learned scale (the
late interaction of ColBERT, Khattab and Zaharia 2020, arXiv 2004.12832, but of states that have seen each other). Head "cosine"
compares the means of both parts instead, and a learned head on both adds to it. A cold linear head on a retrieval-tuned encoder would
learn very slowly. A decoder that was asked a question answers it instead (head "yes_no"): how much more its last state speaks for
yes than for no, as in Qwen3-Reranker (arXiv 2506.05176); the direction starts at the language model's own and is then learned.
Shapes: P pairs, L documents of one query's list, Q and K tokens of a query and a document, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twofold import losses
from twofold.backbone.backbone import Backbone
from twofold.backbone.packed import Pack
from twofold.backbone.tokens import TextTokens
from twofold.records import Example
from twofold.tasks import Encoder, HeadOf, RoutingLoss, StepContext, StepResult, Task, grouped, run_chunks

ListLoss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, ListLoss] = {"softmax": losses.listwise_softmax, "ranknet": losses.ranknet, "bce": losses.pointwise_bce}
HEADS = ("maxsim", "cosine", "linear", "both", "yes_no")
TEACHER_LOSSES: dict[str, ListLoss] = {"margin_mse": losses.margin_mse, "kl": losses.listwise_kl}


class RerankTask(Task[Example]):
    """`head` is "maxsim", "cosine", "linear" (of both parts' features) or "both", the last two's sum; or "yes_no", from `answer_D`."""

    def __init__(
        self, name: str, width: int, *, head: str, loss: str, scale: float, teacher_weight: float, answer_D: Tensor | None = None
    ) -> None:
        super().__init__(name)
        if head not in HEADS:
            raise ValueError(f"rerank head {head!r}: use one of {', '.join(HEADS)}")
        if loss not in {*LOSSES, *TEACHER_LOSSES}:
            raise ValueError(f"rerank loss {loss!r}: use one of {sorted({*LOSSES, *TEACHER_LOSSES})}")
        if scale <= 0:
            raise ValueError(f"rerank scale {scale}: what the cosine is multiplied by is above 0")
        self.head, self.loss_name, self.teacher_weight = head, loss, teacher_weight
        self.log_scale = nn.Parameter(torch.tensor(scale).log()) if head in ("maxsim", "cosine", "both") else None
        self.term_D = nn.Parameter(torch.zeros(width)) if head == "maxsim" else None
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

    def score_tokens(self, hidden_TD: Tensor, pack: Pack) -> Tensor:
        """(P,) raw scores from the token states of a stream of pairs, in the caller's order; 0 before the bias where a part is empty."""
        assert self.log_scale is not None and self.term_D is not None
        (query_PQD, real_PQ), (document_PKD, real_PK) = (part_rows(hidden_TD.float(), pack, part) for part in (1, 2))
        near_PQK = F.normalize(query_PQD, dim=-1) @ F.normalize(document_PKD, dim=-1).transpose(1, 2)
        best_PQ = near_PQK.masked_fill(~real_PK[:, None], -1.0).amax(-1)
        weight_PQ = 2 * torch.sigmoid(query_PQD @ self.term_D.float()) * (real_PQ & real_PK.any(1, keepdim=True))
        score_P = self.log_scale.exp() * (best_PQ * weight_PQ).sum(1) / weight_PQ.sum(1).clamp_min(1e-6)
        score_P = score_P[pack.place_S.to(score_P.device)]
        return score_P if self.bias is None else score_P + self.bias.float()

    def score_answer(self, last_PD: Tensor) -> Tensor:
        """(P,) raw scores from the last hidden state of each pair: the logit of yes minus that of no, when fresh."""
        assert self.answer_D is not None
        score_P = last_PD.float() @ self.answer_D.float()
        return score_P if self.bias is None else score_P + self.bias.float()

    def read(self, backbone: Backbone, hidden_TD: Tensor, pack: Pack) -> Tensor:
        """(P,) raw scores in fp32 in the caller's order, from the hidden states of a stream of pairs."""
        if self.answer_D is not None:
            return self.score_answer(backbone.pool(hidden_TD, pack, pooling="last"))
        if self.head == "maxsim":
            return self.score_tokens(hidden_TD, pack)
        return self.score_hidden(backbone.pool(hidden_TD, pack, part=1), backbone.pool(hidden_TD, pack, part=2))

    def scores(self, encoder: Encoder, pack: Pack, token_budget: int, auxiliary: RoutingLoss | None = None) -> tuple[Tensor, Tensor | None]:
        """(P,) raw scores in fp32 in the caller's order, and the auxiliary loss of the passes if there is one."""
        return run_chunks(encoder, pack, self.name, token_budget, partial(self.read, encoder.backbone), auxiliary)

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
        return grouped(examples, sizes, token_budget)


def part_rows(hidden_TD: Tensor, pack: Pack, part: int) -> tuple[Tensor, Tensor]:
    """States of every pair's query (part 1) or document (part 2) as padded rows (P, L, D) in the stream's order, and what is real."""
    device, lengths = hidden_TD.device, torch.tensor(pack.lengths)
    token_M = (pack.part_T.cpu() == part).nonzero().squeeze(1)  # counted on the CPU: on a GPU every count would wait for it
    pair_M = torch.arange(len(lengths)).repeat_interleave(lengths)[token_M]
    count_P = torch.bincount(pair_M, minlength=len(lengths))
    place_M = torch.arange(len(pair_M)) - (count_P.cumsum(0) - count_P)[pair_M]
    longest = max(int(count_P.max()), 1)  # a maximum needs something to look at
    rows_PLD = hidden_TD.new_zeros(len(lengths), longest, hidden_TD.shape[-1])
    rows_PLD[pair_M.to(device), place_M.to(device)] = hidden_TD[token_M.to(device)]
    return rows_PLD, (torch.arange(longest) < count_P[:, None]).to(device)


def build(
    *,
    name: str = "rerank",
    width: int,
    head_of: HeadOf | None = None,
    head: str = "maxsim",
    loss: str = "softmax",
    scale: float = 20.0,
    teacher_weight: float = 0.0,
    yes: str = "yes",
    no: str = "no",
) -> RerankTask:
    """`head`: maxsim, cosine, linear, both or yes_no; `loss`: softmax, ranknet, bce (by grades), margin_mse, kl (by teacher scores);
    `scale`: what the cosine is multiplied by at the start; `teacher_weight`: adds that much of the KL to a teacher; `yes`, `no`: the
    words, one token each, whose logits the score of a fresh yes_no is the difference of."""
    answer_D = None
    if head == "yes_no" and head_of is not None:
        yes_D, no_D = head_of((yes, no))
        answer_D = yes_D - no_D
    return RerankTask(name, width, head=head, loss=loss, scale=scale, teacher_weight=teacher_weight, answer_D=answer_D)
