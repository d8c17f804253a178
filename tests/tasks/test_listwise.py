"""The pseudo-query's scores against a plain run, its loss, its order, its lists, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from tests.reference import losses as slow
from tests.reference import pseudo_query as plain
from tests.tasks.conftest import PLAN, MakeModel
from tests.tiny_trial import assert_close, gradients, stirred, tiny_examples, tiny_unified
from twofold.errors import ConfigError
from twofold.model.unified import UnifiedModel
from twofold.records import Example
from twofold.tasks import StepContext, StepResult, World, lists_of
from twofold.tasks.listwise import ListwiseTask, build

OPTIONS: dict[str, Any] = {"form": "listwise", "documents_as": "retrieve", "k": 2, "document_tokens": 6}
DOCUMENTS = ("a fox runs", "the lazy dog runs over the red fox", "it", "what is the query")


@pytest.fixture
def bare(backbone_dir: Path) -> UnifiedModel:
    return tiny_unified(backbone_dir, rerank=OPTIONS)


@pytest.fixture
def hub(backbone_dir: Path) -> Any:
    """The plain model, which knows nothing of packing."""
    return AutoModel.from_pretrained(backbone_dir).eval()


def listwise(model: UnifiedModel) -> ListwiseTask:
    task = model.tasks["rerank"]
    assert isinstance(task, ListwiseTask)
    return task


def step(model: UnifiedModel, examples: Sequence[Example], **context: Any) -> tuple[StepResult, dict[str, Tensor]]:
    result = listwise(model).step(examples, StepContext(model.encoder, lambda loss: loss.backward(), **context))
    return result, gradients(model)


def test_scores_are_those_of_a_plain_run(bare: UnifiedModel, hub: Any) -> None:
    """The prompt and every document alone through the Hugging Face model, strings put together by hand."""
    got = bare.score([("red fox", text) for text in DOCUMENTS])
    want = plain.scores(hub, bare.tokens.tokenizer, "red fox", DOCUMENTS, k=2, document_tokens=6, scale=10.0)
    assert got.tolist() == pytest.approx(want, abs=1e-4)
    assert bare.rank("red fox", DOCUMENTS)[0].index == int(np.argmax(want))


def test_rocchio_is_the_formula(backbone_dir: Path, hub: Any) -> None:
    model = tiny_unified(backbone_dir, rerank={**OPTIONS, "feedback": "rocchio", "rocchio": (0.5, 2.0), "scale": 1.0})
    want = plain.rocchio(hub, model.tokens.tokenizer, "red fox", DOCUMENTS, k=2, a=0.5, b=2.0)
    assert model.score([("red fox", text) for text in DOCUMENTS]).tolist() == pytest.approx(want, abs=1e-5)


def test_a_querys_pairs_stay_together(bare: UnifiedModel) -> None:
    """Whatever else is asked for in the same call, and however small the pieces; and the order within a list matters."""
    lists = [("red fox", *DOCUMENTS), ("lazy dog", *DOCUMENTS[1:]), ("is it", DOCUMENTS[0])]
    pairs = [(query, text) for query, *texts in lists for text in texts]
    assert lists_of(pairs) == lists
    together = bare.score(pairs)
    apart = np.concatenate([bare.score([(query, text) for text in texts], token_budget=1) for query, *texts in lists])
    assert together == pytest.approx(apart, abs=1e-5)
    turned = bare.score([("red fox", text) for text in reversed(DOCUMENTS)])[::-1]
    assert np.abs(turned - together[: len(DOCUMENTS)]).max() > 1e-3


def test_documents_are_encoded_as_the_embedder_encodes_them(make_model: MakeModel) -> None:
    model = make_model(rerank=OPTIONS)
    pseudo_D = {}
    for first in ("retrieve", "rerank"):
        task = build(name=first, k=2, document_tokens=6)
        asked = task.pack(model.tokens, [("red fox", *DOCUMENTS)]).asked
        with torch.no_grad():
            pseudo_D[first] = task.pseudo_queries(model.encoder, asked, [], 8192)[0][0].numpy()
    want = 10 * model.encode_documents(DOCUMENTS) @ pseudo_D["rerank"]
    assert model.score([("red fox", text) for text in DOCUMENTS]) == pytest.approx(want, abs=1e-4)
    assert np.abs(pseudo_D["retrieve"] - pseudo_D["rerank"]).max() > 1e-3


@pytest.mark.parametrize("labels", ["grades", "teacher"])
def test_the_loss_is_ranknet_of_the_served_scores(make_model: MakeModel, labels: str) -> None:
    """In the order of the model's own cosine with the query, so that the positive's place tells nothing."""
    model = make_model(rerank={**OPTIONS, "labels": labels})
    examples = [replace(each, grades=(2.0, 1.0, 0.0)) for each in tiny_examples(3, teacher=True)]
    want, orders = [], []
    for each in examples:
        near = model.encode_documents(each.documents) @ model.encode_queries([each.query])[0]
        order = np.argsort(-near, kind="stable").tolist()
        scores = model.score([(each.query, each.documents[i]) for i in order]).tolist()
        label = each.grades if labels == "grades" else each.teacher or ()
        want.append(slow.ranknet(scores, [label[i] for i in order]))
        orders.append(order)
    assert step(model, examples)[0].loss == pytest.approx(sum(want) / 3, rel=1e-4)
    assert any(order != [0, 1, 2] for order in orders)


def test_chunks_change_nothing_and_factor_scales_the_gradient(make_model: MakeModel) -> None:
    examples = tiny_examples(5)
    whole, want = step(make_model(rerank=OPTIONS), examples, token_budget=100_000)
    chunked, got = step(make_model(rerank=OPTIONS), examples, token_budget=30)
    assert (chunked.tokens, chunked.truncated) == (whole.tokens, whole.truncated)
    assert chunked.loss == pytest.approx(whole.loss, abs=1e-5)
    assert_close(got, want, 2e-6)
    twice, doubled = step(make_model(rerank={**OPTIONS, "factor": 2.0}), examples)
    assert twice.loss == pytest.approx(whole.loss, abs=1e-6)
    assert_close({name: value / 2 for name, value in doubled.items()}, want, 1e-6)


def test_the_gradient_goes_through_prompt_and_documents(backbone_dir: Path) -> None:
    """Hard LoRAs tell the two sides apart: both experts get one."""
    plan = replace(PLAN, sees={"retrieve": ("embedding",), "rerank": ("reranking",)}, router="by_task")
    model = stirred(tiny_unified(backbone_dir, plan, rerank=OPTIONS))
    _, found = step(model, tiny_examples(2))
    assert {name.rpartition(".")[2] for name in found if ".bank." in name} == {"embedding", "reranking"}


def test_two_processes_add_up_to_one(make_model: MakeModel) -> None:
    examples = tiny_examples(4)
    alone, want = step(make_model(rerank=OPTIONS), examples)
    parts = [step(make_model(rerank=OPTIONS), examples[at], world=World(rank, 2)) for rank, at in ((0, slice(2)), (1, slice(2, 4)))]
    assert sum(result.loss for result, _ in parts) / 2 == pytest.approx(alone.loss, abs=1e-6)
    assert_close({name: parts[0][1][name] + parts[1][1][name] for name in want}, want, 1e-6)


def test_cuts_are_counted_and_k_is_declared(bare: UnifiedModel) -> None:
    bare.score([("red fox", "fox"), ("red fox", "dog " * 10)])
    assert bare.truncated == {"texts": 0, "pairs": 1}
    bare.score([("red fox", "fox"), ("red fox", "dog"), ("red fox", "it " * 10)])  # beyond k: in no prompt, and whole by itself
    assert bare.truncated["pairs"] == 1
    assert listwise(bare).declares == {
        "reads": "lists",
        "pseudo_query": "listwise prompt",
        "k": 2,
        "document_tokens": 6,
        "labels": "grades",
    }


def test_a_prompt_longer_than_the_model_reads_is_refused(backbone_dir: Path) -> None:
    model = tiny_unified(backbone_dir, rerank={**OPTIONS, "k": 8, "document_tokens": 12})
    with pytest.raises(ConfigError, match="k = 8, document_tokens = 12.*the backbone reads 64"):
        model.score([("red fox", "dog " * 20)] * 8)


def test_what_is_missing_or_wrong_is_named(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="'q0' has no teacher scores"):
        step(make_model(rerank={**OPTIONS, "labels": "teacher"}), tiny_examples(1))
    for wrong in ({"feedback": "prf"}, {"labels": "clicks"}, {"k": 0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} '?{next(iter(wrong.values()))}"):
            build(**wrong)
