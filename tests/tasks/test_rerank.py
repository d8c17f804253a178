"""Reranking's step and score: the warm start, chunks, grades, teachers, heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.reference import losses as slow
from tests.tasks.conftest import MakeModel
from tests.tiny import write_decoder
from tests.tiny_trial import assert_close, gradients, tiny_examples
from twofold.core.routing import Routing
from twofold.errors import ConfigError
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.prompts import prompts_of
from twofold.records import Example
from twofold.tasks import StepContext, StepResult, World
from twofold.tasks.rerank import RerankTask, build

CHAT: dict[str, Any] = {"prompts": prompts_of("chatml"), "max_length": 48, "pair_length": 220, "query_length": 20}
PAIRS = [("red fox", "a fox runs"), ("what is it", "the lazy dog runs over the fox"), ("dog", "a")]


def rerank(model: UnifiedModel) -> RerankTask:
    task = model.tasks["rerank"]
    assert isinstance(task, RerankTask)
    return task


def step(model: UnifiedModel, examples: Sequence[Example], **context: Any) -> tuple[StepResult, dict[str, Tensor]]:
    result = rerank(model).step(examples, StepContext(model.encoder, lambda loss: loss.backward(), **context))
    return result, gradients(model)


def spread(routings: dict[str, Routing]) -> Tensor:
    return torch.stack([routing.weight.square().mean() for routing in routings.values()]).mean()


def test_the_score_starts_as_the_cosine_of_both_parts(make_model: MakeModel) -> None:
    """Of the means of the query's and the document's own tokens inside the joint pass; the template's tokens count for neither."""
    model = make_model(rerank={"scale": 12.0, "head": "both"})
    task = rerank(model)
    assert task.linear is not None
    assert task.log_scale is not None
    task.log_scale.data.fill_(12.0).log_()
    torch.nn.init.zeros_(task.linear.weight)
    got = model.score(PAIRS)
    for score, pair in zip(got, PAIRS, strict=True):
        pack = model.tokens.pairs([pair])
        with torch.no_grad():
            hidden_TD, _ = model.backbone(pack, "rerank")
        query_D, document_D = (hidden_TD[pack.part_T == part].mean(0) for part in (1, 2))
        assert score == pytest.approx(12.0 * float(F.cosine_similarity(query_D, document_D, dim=0)), abs=1e-4)


@pytest.mark.parametrize("fresh", [True, False])
def test_maxsim_equals_its_plain_form(make_model: MakeModel, fresh: bool) -> None:
    """Every query token's best cosine among the document's tokens, in the joint pass, weighted; a part without tokens scores 0."""
    model = make_model(rerank={"head": "maxsim", "scale": 12.0})
    task = rerank(model)
    assert task.log_scale is not None and task.term_D is not None
    if fresh:
        task.log_scale.data.fill_(12.0).log_()
        task.term_D.data.zero_()
    pairs = [*PAIRS, ("", "a fox"), ("a fox", "")]
    for score, pair in zip(model.score(pairs), pairs, strict=True):
        pack = model.tokens.pairs([pair])
        with torch.no_grad():
            hidden_TD, _ = model.backbone(pack, "rerank")
        query, document = (hidden_TD[pack.part_T == part].tolist() for part in (1, 2))
        weights = None if fresh else [2 / (1 + math.exp(-slow.dot(token, task.term_D.tolist()))) for token in query]
        want = math.exp(task.log_scale.item()) * slow.max_sim(query, document, weights)
        assert score == pytest.approx(want, abs=1e-4)


def test_maxsim_alone_and_in_company(make_model: MakeModel) -> None:
    """A pair's score does not depend on the pairs beside it, also where all of a batch's documents are empty."""
    model = make_model(rerank={"head": "maxsim"})
    pairs = [*PAIRS, ("dog", "")]
    together = model.score(pairs)
    assert together.tolist() == pytest.approx([float(model.score([pair])[0]) for pair in pairs], abs=1e-5)
    assert step(model, tiny_examples(3))[1]["rerank.term_D"].abs().max() > 0


def test_a_fresh_head_is_silent(make_model: MakeModel) -> None:
    fresh = {head: build(width=32, head=head) for head in ("cosine", "linear", "both")}
    parts = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)), torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fresh["cosine"].score_hidden(*parts), fresh["both"].score_hidden(*parts))
    assert torch.equal(fresh["linear"].score_hidden(*parts), torch.zeros(4))
    assert [len(list(task.parameters())) for task in fresh.values()] == [1, 1, 2]


def test_only_a_loss_of_single_scores_has_a_bias() -> None:
    """Added to all scores of a list it changes no other loss: its gradient would be rounding errors, which Adam makes into steps."""
    assert build(width=32, loss="bce").bias is not None
    assert all(build(width=32, loss=loss).bias is None for loss in ("softmax", "ranknet", "margin_mse", "kl"))


def test_a_linear_head_sees_features_of_about_one() -> None:
    task = build(width=64, head="linear")
    assert task.linear is not None
    torch.nn.init.ones_(task.linear.weight)
    draw = torch.Generator().manual_seed(0)
    query_PD, document_PD = torch.randn(200, 64, generator=draw), torch.randn(200, 64, generator=draw)
    with torch.no_grad():
        per_feature = task.score_hidden(query_PD, document_PD) / 128
    assert 0.1 < float(per_feature.mean()) < 2


@pytest.mark.parametrize(("head", "own"), [("both", {"rerank.log_scale", "rerank.linear.weight"}), ("maxsim", {"rerank.term_D"})])
@pytest.mark.parametrize("auxiliary", [None, spread])
@pytest.mark.parametrize("budget", [1, 60])
def test_chunks_do_not_change_loss_or_gradient(make_model: MakeModel, budget: int, auxiliary: Any, head: str, own: set[str]) -> None:
    examples = tiny_examples(5)
    options = {"head": head}
    whole, want = step(make_model(rerank=options), examples, token_budget=100_000, weight=0.3, auxiliary=auxiliary)
    chunked, got = step(make_model(rerank=options), examples, token_budget=budget, weight=0.3, auxiliary=auxiliary)
    assert (chunked.tokens, chunked.truncated) == (whole.tokens, whole.truncated)
    assert chunked.loss == pytest.approx(whole.loss, abs=1e-5)
    assert_close(got, want, 2e-6)
    assert own <= got.keys()


def test_two_processes_add_up_to_one(make_model: MakeModel) -> None:
    examples = tiny_examples(4)
    alone, want = step(make_model(), examples, auxiliary=spread)
    parts = [step(make_model(), examples[at], world=World(rank, 2), auxiliary=spread) for rank, at in ((0, slice(2)), (1, slice(2, 4)))]
    assert sum(result.loss for result, _ in parts) / 2 == pytest.approx(alone.loss, abs=1e-6)
    assert_close({name: sum((part[1][name] for part in parts), torch.zeros(())) for name in want}, want, 1e-6)


@pytest.mark.parametrize("loss", ["softmax", "ranknet", "bce"])
def test_losses_by_grades(make_model: MakeModel, loss: str) -> None:
    examples = [replace(example, grades=(2.0, 1.0, 0.0)) for example in tiny_examples(3)]
    model = make_model(rerank={"loss": loss})
    plain = {"softmax": slow.listwise_softmax, "ranknet": slow.ranknet, "bce": slow.pointwise_bce}[loss]
    scores = [model.score([(example.query, text) for text in example.documents]).tolist() for example in examples]
    want = [plain(row, example.grades) for row, example in zip(scores, examples, strict=True)]
    assert step(model, examples)[0].loss == pytest.approx(sum(want) / 3, rel=1e-4)


@pytest.mark.parametrize("loss", ["margin_mse", "kl"])
def test_losses_by_a_teacher(make_model: MakeModel, loss: str) -> None:
    examples = tiny_examples(3, teacher=True)
    model = make_model(rerank={"loss": loss})
    plain = {"margin_mse": slow.margin_mse, "kl": slow.listwise_kl}[loss]
    scores = [model.score([(example.query, text) for text in example.documents]).tolist() for example in examples]
    want = [plain(row, example.teacher or ()) for row, example in zip(scores, examples, strict=True)]
    assert step(model, examples)[0].loss == pytest.approx(sum(want) / 3, rel=1e-4)
    with pytest.raises(ValueError, match="needs teacher scores, and 'q0' has none"):
        step(model, tiny_examples(1))


def test_a_teacher_beside_the_grades(make_model: MakeModel) -> None:
    examples = tiny_examples(2, teacher=True)
    model = make_model(rerank={"teacher_weight": 0.5})
    scores = [model.score([(example.query, text) for text in example.documents]).tolist() for example in examples]
    want = [
        slow.listwise_softmax(row, example.grades) + 0.5 * slow.listwise_kl(row, example.teacher or ())
        for row, example in zip(scores, examples, strict=True)
    ]
    assert step(model, examples)[0].loss == pytest.approx(sum(want) / 2, rel=1e-4)
    without = [replace(example, teacher=None) for example in examples]
    assert step(model, without)[0].loss == pytest.approx(
        sum(slow.listwise_softmax(r, e.grades) for r, e in zip(scores, examples, strict=True)) / 2, rel=1e-4
    )


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_fresh_yes_no_is_the_language_models_own_answer(tmp_path: Path, family: str, tie: bool) -> None:
    """The logit of yes minus that of no behind the whole chat, so that its sigmoid is their softmax, as in Qwen3-Reranker."""
    whole: Any = write_decoder(tmp_path, family, tie=tie)
    model = build_model(ModelSpec(str(tmp_path), {"rerank": {"head": "yes_no"}}, **CHAT, pooling="mean"))
    yes, no = (model.tokens.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    for score, pair in zip(model.score(PAIRS), PAIRS, strict=True):
        with torch.no_grad():
            logits = whole(model.tokens.pairs([pair]).input_ids_T[None]).logits[0, -1]
        assert score == pytest.approx(float(logits[yes] - logits[no]), rel=1e-4, abs=1e-4)
        assert float(torch.sigmoid(torch.tensor(score))) == pytest.approx(float(logits[[no, yes]].softmax(0)[1]), abs=1e-4)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_yes_no_learns(tmp_path: Path, loss: str) -> None:
    write_decoder(tmp_path, "llama")
    model = build_model(ModelSpec(str(tmp_path), {"rerank": {"head": "yes_no", "loss": loss}}, **CHAT))
    assert [name for name, _ in model.groups()["head:rerank"]] == ["rerank.answer_D", *(["rerank.bias"] if loss == "bce" else [])]
    examples = tiny_examples(3)
    whole, want = step(model.train(), examples, token_budget=100_000)
    chunked, got = step(model, examples, token_budget=1)
    assert chunked.loss == pytest.approx(whole.loss, abs=1e-5) and whole.truncated == 0
    assert_close(got, want, 1e-5)
    assert want["rerank.answer_D"].abs().max() > 0


def test_yes_no_needs_words_of_one_token_and_a_language_model(tmp_path: Path) -> None:
    write_decoder(tmp_path, "llama")
    with pytest.raises(ConfigError, match="the word 'maybe' is not one token"):
        build_model(ModelSpec(str(tmp_path), {"rerank": {"head": "yes_no", "yes": "maybe"}}, **CHAT))
    opened = build(width=8, head="yes_no")
    assert opened.answer_D is not None and opened.answer_D.abs().max() == 0  # a saved model's is loaded


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"head": "cosin"}, "head 'cosin'"), ({"loss": "mse"}, "loss 'mse'"), ({"scale": 0.0}, "scale 0.0")],
)
def test_wrong_options_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build(width=8, **options)
