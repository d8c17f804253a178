"""Retrieval's step: gradient caching, several processes, judged positives, all against the direct computation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.reference import losses as slow
from tests.tasks.conftest import PLAN, MakeModel
from tests.tiny_trial import assert_close, gradients, stirred, tiny_examples, tiny_unified
from twofold.core.inject import Expert, LayerPlan
from twofold.core.routing import Routing
from twofold.errors import ConfigError
from twofold.model.state import state_of
from twofold.model.unified import UnifiedModel
from twofold.plugins import build_plugin
from twofold.records import Example
from twofold.tasks import StepContext, StepResult, World
from twofold.tasks.retrieve import RetrieveTask, build


def retrieve(model: UnifiedModel) -> RetrieveTask:
    task = model.tasks["retrieve"]
    assert isinstance(task, RetrieveTask)
    return task


def step(model: UnifiedModel, examples: Sequence[Example], **context: Any) -> tuple[StepResult, dict[str, Tensor]]:
    result = retrieve(model).step(
        examples, StepContext(model.encoder, lambda loss: loss.backward() if loss.requires_grad else None, **context)
    )
    return result, gradients(model)


def spread(routings: dict[str, Routing]) -> Tensor:
    """Some auxiliary loss: a mean over texts, so that chunks do not change it."""
    return torch.stack([routing.weight.square().mean() for routing in routings.values()]).mean()


@pytest.mark.parametrize("options", [{}, {"dims": [8, 32], "query_negatives": True, "document_negatives": True}, {"keep": 2.0}])
@pytest.mark.parametrize("auxiliary", [None, spread])
def test_gradient_caching_is_exact(make_model: MakeModel, options: dict[str, Any], auxiliary: Any) -> None:
    examples = tiny_examples(6)
    context = {"token_budget": 40, "weight": 0.7, "auxiliary": auxiliary}
    direct, want = step(make_model(retrieve=options), examples, **context)
    cached, got = step(make_model(retrieve={**options, "cache_tokens": 1}), examples, **context)
    assert cached == direct
    assert_close(got, want, 1e-6)


def test_chunks_do_not_change_the_gradient(make_model: MakeModel) -> None:
    examples = tiny_examples(5)
    whole, want = step(make_model(), examples)
    chunked, got = step(make_model(), examples, token_budget=20)
    assert chunked.loss == pytest.approx(whole.loss, abs=1e-6)
    assert_close(got, want, 1e-6)


def test_gradients_really_flow(make_model: MakeModel) -> None:
    result, found = step(make_model(), tiny_examples(4))
    assert result.loss > 0
    assert result.tokens > 0
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    assert not any(name.startswith("rerank.") for name in found)


def test_the_loss_is_the_plain_one(make_model: MakeModel) -> None:
    model, examples = make_model(), tiny_examples(3)
    with torch.no_grad():
        query_ND = torch.from_numpy(model.encode_queries([example.query for example in examples]))
        document_MD = torch.from_numpy(model.encode_documents([text for example in examples for text in example.documents]))
    want = slow.info_nce(query_ND.tolist(), document_MD.tolist(), [0, 3, 6], 0.05, 0.1)
    result, _ = step(model, examples)
    assert result.loss == pytest.approx(sum(want) / 3, abs=1e-4)


def test_keep_is_the_mean_distance_from_the_bare_backbone(make_model: MakeModel, backbone_dir: Path) -> None:
    """Of queries and of documents apart, so that many documents do not outweigh their query."""
    examples = tiny_examples(3)
    model, bare = make_model(retrieve={"keep": 4.0}), tiny_unified(backbone_dir)
    texts = [example.query for example in examples], [text for example in examples for text in example.documents]
    with torch.no_grad():
        drifts = [
            [1 - slow.dot(own, kept) for own, kept in zip(encoded(model)(side).tolist(), encoded(bare)(side).tolist(), strict=True)]
            for side, encoded in zip(texts, (attrgetter("encode_queries"), attrgetter("encode_documents")), strict=True)
        ]
    want = 4 * sum(sum(side) / len(side) for side in drifts) / 2
    assert want > 0.01
    without, _ = step(make_model(), examples)
    assert step(model, examples)[0].loss - without.loss == pytest.approx(want, abs=1e-4)


def test_what_is_fresh_has_nothing_to_keep(backbone_dir: Path) -> None:
    """A bank's B starts at zero: the model gives the backbone's own vectors, and its loss is InfoNCE alone."""
    losses = [step(tiny_unified(backbone_dir, PLAN, retrieve=options), tiny_examples(3))[0].loss for options in ({}, {"keep": 50.0})]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_judged_positives_are_no_negatives(make_model: MakeModel) -> None:
    """A hard negative that is judged relevant, and another query's copy of the own positive, count for nothing."""
    first, second = tiny_examples(2)
    judged = replace(first, grades=(1.0, 2.0, 0.0))
    without = [replace(first, documents=first.documents[::2], document_ids=first.document_ids[::2], grades=(1.0, 0.0)), second]
    options = {"margin": None}
    with_judged, _ = step(make_model(retrieve=options), [judged])
    alone, _ = step(make_model(retrieve=options), without[:1])
    assert with_judged.loss == pytest.approx(alone.loss, abs=1e-6)
    copied = replace(
        second, documents=(second.documents[0], first.documents[0]), document_ids=("x", first.document_ids[0]), grades=(1.0, 0.0)
    )
    model = make_model(retrieve=options)
    task = retrieve(model)
    vectors = [F.normalize(torch.randn(n, 4, generator=torch.Generator().manual_seed(n)), dim=-1) for n in (2, 5)]
    loss = task.loss(*vectors, [first, copied], World())
    relevant = [[True, False, False, False, True], [False, False, False, True, False]]
    want = slow.info_nce(vectors[0].tolist(), vectors[1].tolist(), [0, 3], 0.05, None, relevant)
    assert float(loss) == pytest.approx(sum(want) / 2, abs=1e-5)


class Meeting:
    """Two processes as threads: `gather` waits until both have come, and gives each the other's tensor too."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.brought = size, threading.Barrier(size, timeout=20), [torch.empty(0)] * size

    def world(self, rank: int) -> World:
        def gather(tensor: Tensor) -> Tensor:
            assert not tensor.requires_grad
            self.brought[rank] = tensor
            self.barrier.wait()
            everyone = torch.cat([piece.clone() for piece in self.brought])
            self.barrier.wait()
            return everyone

        return World(rank, self.size, gather)


def together(
    make: Callable[[], UnifiedModel], parts: Sequence[Sequence[Example]], **context: Any
) -> list[tuple[StepResult, dict[str, Tensor]]]:
    meeting, models = Meeting(len(parts)), [make() for _ in parts]
    done: dict[int, tuple[StepResult, dict[str, Tensor]]] = {}

    def run(rank: int) -> None:
        done[rank] = step(models[rank], parts[rank], world=meeting.world(rank), **context)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [done[rank] for rank in range(len(parts))]


@pytest.mark.parametrize("cache_tokens", [1, 100_000])
def test_two_processes_add_up_to_one(make_model: MakeModel, cache_tokens: int) -> None:
    examples = tiny_examples(6)
    examples[4] = replace(examples[4], grades=(1.0, 0.0, 1.0))  # judged in the second process only
    options = {"cache_tokens": cache_tokens, "query_negatives": True, "document_negatives": True, "keep": 3.0}
    alone, want = step(make_model(retrieve=options), examples, weight=0.5, auxiliary=spread)
    (first, ours), (second, theirs) = together(
        lambda: make_model(retrieve=options), (examples[:3], examples[3:]), weight=0.5, auxiliary=spread
    )
    assert first.loss == pytest.approx(alone.loss, abs=1e-6)
    assert second.loss == pytest.approx(alone.loss, abs=1e-6)
    assert first.tokens + second.tokens == alone.tokens
    assert_close({name: ours[name] + theirs[name] for name in ours}, want, 1e-5)


def test_processes_of_different_size_are_refused(make_model: MakeModel) -> None:
    task, vectors = retrieve(make_model()), torch.eye(4)
    uneven = World(0, 2, lambda tensor: torch.cat([tensor, tensor + 1]))
    with pytest.raises(ValueError, match="different numbers of queries and documents"):
        task.loss(vectors[:1], vectors[:3], tiny_examples(1), uneven)


def test_options_are_checked() -> None:
    assert build(width=32, margin=-1.0).margin is None
    with pytest.raises(ValueError, match="dims from 1 to 32"):
        build(width=32, dims=[64])
    with pytest.raises(ValueError, match="temperature above 0"):
        build(width=32, temperature=0.0)
    with pytest.raises(ValueError, match="keep -1"):
        build(width=32, keep=-1.0)
    with pytest.raises(ConfigError, match="temperature"):
        build_plugin("tasks", "retrieve", {"temprature": 1.0}, width=32)


EXPERTS = tuple(Expert(name, 2) for name in ("one", "two", "three"))
SIDES = LayerPlan(
    EXPERTS[:2], {"retrieve": ("one", "two"), "retrieve/query": ("one",), "retrieve/document": ("two",), "rerank": ()}, router="by_task"
)
DOMAINS = ("one", "two", "three")
BY_DOMAIN = LayerPlan(
    EXPERTS,
    {**{f"retrieve/{name}": (name,) for name in DOMAINS}, "retrieve": DOMAINS, "retrieve/document": (), "rerank": ()},
    router="by_task",
)


def planned(backbone_dir: Path, plan: LayerPlan, **options: Any) -> UnifiedModel:
    return stirred(tiny_unified(backbone_dir, plan, retrieve=options), size=0.3)


def under(model: UnifiedModel, texts: Sequence[str], passes: str | tuple[()], prompt: str | None = None) -> Tensor:
    """Unit vectors by passes of this name."""
    with torch.no_grad():
        return retrieve(model).vectors(model.encoder, model.tokens.texts(texts, prompt), 8192, task=passes)[0]


def test_queries_and_documents_have_passes_of_their_own(backbone_dir: Path) -> None:
    """Each side has its own expert, and they are trained together; without a prompt a text is a document."""
    model, examples = planned(backbone_dir, SIDES, sides=True), tiny_examples(4)
    texts = [example.query for example in examples]
    queries, documents = torch.tensor(model.encode_queries(texts)), torch.tensor(model.encode_documents(texts))
    assert torch.equal(queries, under(model, texts, "retrieve/query")) and torch.equal(documents, under(model, texts, "retrieve/document"))
    assert (queries - documents).abs().max() > 1e-3
    assert torch.equal(torch.tensor(model.encode(texts)), documents)
    assert model.predict("retrieve", texts) == documents.tolist()
    result, found = step(model, examples)
    sides = (
        under(model, texts, "retrieve/query"),
        under(model, [text for each in examples for text in each.documents], "retrieve/document"),
    )
    assert result.loss == pytest.approx(float(retrieve(model).loss(*sides, examples, World())), abs=1e-5)
    assert {name.rpartition(".")[2] for name in found} == {"one", "two"}
    assert_close(step(planned(backbone_dir, SIDES, sides=True, cache_tokens=1), examples, token_budget=40)[1], found, 1e-6)


def test_a_query_goes_to_the_nearest_domain(backbone_dir: Path) -> None:
    """Chosen by the bare backbone's vector; documents stay bare; the experts of other domains are left alone."""
    model, texts = planned(backbone_dir, BY_DOMAIN, domains=list(DOMAINS)), ["a fox", "the lazy dog", "what is it", "runs over"]
    domains = retrieve(model).domains
    assert domains is not None
    bare = under(model, texts, ())
    domains.centroid_CD[:2], domains.count_C[:2] = bare[:2], 1
    want = [max((0, 1), key=lambda c, row=row: float(row @ bare[c])) for row in bare]  # type: ignore[misc]
    assert want[:2] == [0, 1]
    got = torch.tensor(model.encode_queries(texts))
    for row, text, domain in zip(got, texts, want, strict=True):
        torch.testing.assert_close(row, under(model, [text], f"retrieve/{DOMAINS[domain]}")[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.tensor(model.encode_documents(texts)), bare)


@pytest.mark.parametrize("cache_tokens", [16384, 1])
def test_domains_learn_once_a_step_from_all_processes(backbone_dir: Path, cache_tokens: int) -> None:
    """And a query of a dataset that is a domain belongs there, wherever the centroids are."""
    examples = [replace(each, query_id=f"{'two' if i == 3 else 'other'}/{i}") for i, each in enumerate(tiny_examples(4))]
    model = planned(backbone_dir, BY_DOMAIN, domains=list(DOMAINS), cache_tokens=cache_tokens)
    bare = under(model, [each.query for each in examples], ())
    result, found = step(model, examples, token_budget=30)
    domains = retrieve(model).domains
    assert domains is not None and domains.count_C.tolist() == [1, 2, 1]
    torch.testing.assert_close(domains.centroid_CD, torch.stack([bare[0], bare[[1, 3]].mean(0), bare[2]]))
    assert {name.rpartition(".")[2] for name in found} == set(DOMAINS)
    assert {name for name in state_of(model) if "domains" in name} == {
        f"head.retrieve.domains.{name}" for name in ("centroid_CD", "count_C")
    }
    if cache_tokens == 1:
        direct, want = step(planned(backbone_dir, BY_DOMAIN, domains=list(DOMAINS)), examples)
        assert result.loss == pytest.approx(direct.loss, abs=1e-6)
        assert_close(found, want, 1e-6)
