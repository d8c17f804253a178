"""Language modelling on the documents of a corpus: what a backbone is trained on before it learns anything else.

An encoder fills in masked tokens (Devlin et al. 2019, arXiv 1810.04805: 15 % of them, of which 8 in 10 are masked, 1 is another token and
1 stays); a decoder predicts the next token. Logits are the states' products with the input embeddings, as in a tied head: a sentence
encoder has lost its own. Each text counts the same. Masks are drawn from the ids of the batch, so that a step can be repeated.
Shapes: S texts, T tokens, P predicted ones, D features, V words.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from twofold.backbone.packed import Pack, split
from twofold.backbone.tokens import TextTokens
from twofold.core.routing import Routing
from twofold.errors import ConfigError
from twofold.records import Document
from twofold.tasks import Encoder, StepContext, StepResult, Task

READS = Document
KEEP = -1
"""The target of a token that is not predicted."""


class LmTask(Task[Document]):
    """No head of its own; `masked` is the share of an encoder's tokens that are predicted."""

    def __init__(self, name: str, masked: float) -> None:
        super().__init__(name)
        self.masked = masked

    @property
    def measure(self) -> str:
        return "likelihood"

    def pack(self, tokens: TextTokens, items: Sequence[str]) -> Pack:
        """Texts, without a prompt."""
        return tokens.texts(items)

    def predict(self, encoder: Encoder, pack: Pack, token_budget: int) -> list[float]:
        """The mean log-likelihood of each text's predicted tokens, with masks that depend on the text alone."""
        found = [0.0] * len(pack.order)
        for chunk, at in split(pack, token_budget):
            for i, loss in zip(at, self.losses(encoder, chunk, 0)[0].tolist(), strict=True):
                found[i] = -loss
        return found

    def step(self, examples: Sequence[Document], context: StepContext) -> StepResult:
        """Chunks of texts go backward one by one, so that only one chunk's logits are in memory."""
        pack = self.pack(context.encoder.tokens, [example.body for example in examples])
        seed, n, total = _digest(pack.input_ids_T), len(examples) * context.world.size, 0.0
        for chunk, at in split(pack, context.token_budget):
            loss_S, routings = self.losses(context.encoder, chunk, seed)
            share = loss_S.sum() * context.weight / n
            context.backward(share if context.auxiliary is None else share + context.auxiliary(routings) * len(at) / n)
            total += float(loss_S.detach().sum())
        return StepResult(total / len(examples), pack.tokens, pack.truncated)

    def losses(self, encoder: Encoder, pack: Pack, seed: int) -> tuple[Tensor, dict[str, Routing]]:
        """(S,) mean cross-entropy of each text's predicted tokens in the stream's order; 0 for a text that has none.

        Raises ConfigError for an encoder without a mask token, and a decoder whose head is not its input embeddings.
        """
        backbone, tokenizer = encoder.backbone, encoder.tokens.tokenizer
        if backbone.causal and not backbone.config.get_text_config().tie_word_embeddings:
            raise ConfigError(f"{self.name}: {backbone.config.model_type} has a head apart from its embeddings, which is not loaded here")
        if not backbone.causal and tokenizer.mask_token_id is None:
            raise ConfigError(f"{self.name}: the tokenizer {type(tokenizer).__name__} has no mask token")
        words_VD = backbone.model.get_input_embeddings().weight  # type: ignore[operator]
        ids_T, target_T = following(pack) if backbone.causal else covered(pack, self.masked, tokenizer.mask_token_id, len(words_VD), seed)
        hidden_TD, routings = backbone(replace(pack, input_ids_T=ids_T), self.name)
        target_T = target_T.to(hidden_TD.device)
        segment_T = torch.arange(len(pack.lengths)).repeat_interleave(torch.tensor(pack.lengths)).to(hidden_TD.device)
        at_P = (target_T != KEEP).nonzero().squeeze(-1)
        logit_PV = F.linear(hidden_TD[at_P].to(words_VD.dtype), words_VD).float()
        loss_P = F.cross_entropy(logit_PV, target_T[at_P], reduction="none")
        count_S = torch.bincount(segment_T[at_P], minlength=len(pack.lengths)).clamp_min(1)
        return loss_P.new_zeros(len(pack.lengths)).index_add(0, segment_T[at_P], loss_P) / count_S, routings


def following(pack: Pack) -> tuple[Tensor, Tensor]:
    """A decoder's input, and each token's target: the one behind it, none behind a text's last."""
    target_T = torch.cat([pack.input_ids_T[1:], pack.input_ids_T.new_full((1,), KEEP)])
    target_T[torch.tensor(pack.lengths).cumsum(0) - 1] = KEEP
    return pack.input_ids_T, target_T


def covered(pack: Pack, share: float, mask_id: int, words: int, seed: int) -> tuple[Tensor, Tensor]:
    """An encoder's input, and the targets of the tokens that are hidden: about `share` of a text's own, at least one."""
    ids, targets = [], []
    for ids_L, part_L in zip(pack.input_ids_T.split(list(pack.lengths)), pack.part_T.split(list(pack.lengths)), strict=True):
        draw = torch.Generator().manual_seed(_digest(ids_L) ^ seed)
        chance_L, fate_L = torch.rand(len(ids_L), generator=draw), torch.rand(len(ids_L), generator=draw)
        other_L = torch.randint(words, (len(ids_L),), generator=draw)
        chance_L = chance_L.masked_fill(part_L == 0, 2.0)
        chosen_L = (chance_L < share) | ((chance_L == chance_L.min()) & (part_L != 0))
        ids.append(torch.where(chosen_L & (fate_L < 0.8), mask_id, torch.where(chosen_L & (fate_L >= 0.9), other_L, ids_L)))
        targets.append(torch.where(chosen_L, ids_L, KEEP))
    return torch.cat(ids), torch.cat(targets)


def _digest(ids_T: Tensor) -> int:
    """A 32-bit number for some tokens."""
    return zlib.crc32(ids_T.cpu().numpy().tobytes())


def build(*, name: str = "lm", masked: float = 0.15) -> LmTask:
    """`masked`: the share of an encoder's tokens that are predicted. Raises ValueError where it is not between 0 and 1."""
    if not 0 < masked < 1:
        raise ValueError(f"lm: masked {masked}; use a share between 0 and 1")
    return LmTask(name, masked)
