"""A language model's loss against a plain run, and what is masked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

from tests.tiny import bert_tokenizer, write_decoder
from tests.tiny_trial import assert_close, tiny_unified
from twofold.backbone.packed import make_pack
from twofold.errors import ConfigError
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.records import Document
from twofold.tasks import StepContext
from twofold.tasks.lm import KEEP, LmTask, build, covered

TEXTS = ("the red fox runs over the lazy dog", "a", "what is it", "the dog runs over a red fox")
DOCUMENTS = [Document(str(i), "", text) for i, text in enumerate(TEXTS)]
DECODER: dict[str, Any] = {"max_length": 48, "pair_length": 80, "query_length": 20, "prompts": {"append": "<|im_end|>"}}


def step(model: UnifiedModel, documents: Sequence[Document] = DOCUMENTS, **context: Any) -> tuple[float, dict[str, Tensor]]:
    """The loss and the backbone's gradients."""
    task = model.tasks["lm"]
    assert isinstance(task, LmTask)
    model.backbone.requires_grad_(True).zero_grad(set_to_none=True)
    result = task.step(documents, StepContext(model.encoder, lambda loss: loss.backward(), **context))
    return result.loss, {name: p.grad.clone() for name, p in model.backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_decoders_loss_is_the_language_models_own(tmp_path: Path, family: str) -> None:
    whole: Any = write_decoder(tmp_path, family)
    model = build_model(ModelSpec(str(tmp_path), {"lm": {}}, **DECODER))
    want = []
    for text in TEXTS:
        ids = model.tokens.texts([text]).input_ids_T[None]
        with torch.no_grad():
            want.append(float(whole(input_ids=ids, labels=ids).loss))
    assert [-value for value in model.predict("lm", TEXTS)] == pytest.approx(want, rel=1e-4)
    assert step(model)[0] == pytest.approx(sum(want) / len(want), rel=1e-4)


def test_an_encoders_loss_is_that_of_the_hidden_tokens(backbone_dir: Path) -> None:
    """Each text alone through the plain model, its states against the input embeddings."""
    model, hub = tiny_unified(backbone_dir, lm={}), AutoModel.from_pretrained(backbone_dir).eval()
    words_VD = hub.get_input_embeddings().weight.detach()
    tokenizer = model.tokens.tokenizer
    for text, got in zip(TEXTS, model.predict("lm", TEXTS), strict=True):
        ids_T, target_T = covered(model.tokens.texts([text]), 0.15, tokenizer.mask_token_id, len(words_VD), 0)
        with torch.no_grad():
            hidden_TD = hub(input_ids=ids_T[None]).last_hidden_state[0]
        rows = [F.log_softmax(words_VD @ hidden_TD[t], 0)[target] for t, target in enumerate(target_T.tolist()) if target != KEEP]
        assert got == pytest.approx(float(torch.stack(rows).mean()), rel=1e-4)


def test_what_is_hidden() -> None:
    """About the share of a text's own tokens, at least one, never the template's; of ten eight are masked and one is another."""
    draw = torch.Generator().manual_seed(1)
    texts = [torch.randint(5, 60, (n,), generator=draw).tolist() for n in (400, 400, 400, 1, 2)]
    pack = make_pack([([2, *ids, 3], [0] * (len(ids) + 2), [0, *[1] * len(ids), 0]) for ids in texts])
    ids_T, target_T = covered(pack, 0.15, 99, 60, seed=7)
    hidden_T = target_T != KEEP
    assert torch.equal(target_T[hidden_T], pack.input_ids_T[hidden_T]) and torch.equal(ids_T[~hidden_T], pack.input_ids_T[~hidden_T])
    assert not bool(hidden_T[pack.part_T == 0].any())
    counts = [int(own.sum()) for own in hidden_T.split(list(pack.lengths))]
    assert all(40 <= count <= 80 for count in counts[:3]) and all(count == 1 for count in counts[4:])
    masked, same = (float((ids_T == other)[hidden_T].float().mean()) for other in (99, pack.input_ids_T))
    assert 0.7 < masked < 0.9 and 0.03 < same < 0.2
    again, other = (covered(pack, 0.15, 99, 60, seed)[0] for seed in (7, 8))
    assert torch.equal(again, ids_T) and not torch.equal(other, ids_T)


def test_chunks_and_processes_do_not_change_the_gradient(backbone_dir: Path) -> None:
    whole, want = step(tiny_unified(backbone_dir, lm={}))
    chunked, got = step(tiny_unified(backbone_dir, lm={}), token_budget=1)
    assert chunked == pytest.approx(whole, abs=1e-5)
    assert_close(got, want, 1e-5)
    assert any("word_embeddings" in name for name in want)


def test_what_cannot_be_learnt_is_refused(tmp_path: Path, backbone_dir: Path) -> None:
    write_decoder(tmp_path, "llama", tie=False)
    with pytest.raises(ConfigError, match="llama has a head apart"):
        build_model(ModelSpec(str(tmp_path), {"lm": {}}, **DECODER)).predict("lm", ["a"])
    model = tiny_unified(backbone_dir, lm={})
    model.tokens.tokenizer = bert_tokenizer()
    model.tokens.tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="no mask token"):
        model.predict("lm", ["a"])
    with pytest.raises(ValueError, match="masked 1.0"):
        build(masked=1.0)
