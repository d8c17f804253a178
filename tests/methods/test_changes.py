"""Looking at training batches without learning from them, and another router over the same experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.methods.conftest import THREE
from tests.tiny_trial import assert_close, gradients, stirred, tiny_examples, tiny_unified
from twofold.core.inject import LayerPlan, mixtures
from twofold.errors import ConfigError
from twofold.methods._changes import mean_input, mean_routing, route_over
from twofold.model.unified import UnifiedModel
from twofold.records import Example
from twofold.routers.ramole import RamoleRouter
from twofold.tasks import StepContext, Task

TASKS = ("retrieve", "rerank")


def batches(task: str, step: int) -> list[Example]:
    return tiny_examples(3, seed=step + 10 * TASKS.index(task))


def test_the_mean_routing_is_the_mean_over_texts(backbone_dir: Path) -> None:
    model = stirred(tiny_unified(backbone_dir, LayerPlan(THREE, router="soft")), size=0.3)
    examples = [example for step in range(2) for example in batches("rerank", step)]
    pairs = [(example.query, text) for example in examples for text in example.documents]
    want = model.eval().routings(pairs=pairs)
    model.train()
    found = mean_routing(model, batches, "rerank", 2)
    assert model.training and found.keys() == want.keys()
    for layer, weight_E in found.items():
        torch.testing.assert_close(weight_E.float(), want[layer].weight.mean(0))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mean_routing_of_retrieval_is_over_queries_and_documents_with_gradient_caching_too(backbone_dir: Path) -> None:
    plan = LayerPlan(THREE, router="soft")
    direct, cached = (stirred(tiny_unified(backbone_dir, plan, retrieve=each)).eval() for each in ({}, {"cache_tokens": 1}))
    found, again = mean_routing(direct, batches, "retrieve", 2), mean_routing(cached, batches, "retrieve", 2)
    texts = [text for step in range(2) for example in batches("retrieve", step) for text in (example.query, *example.documents)]
    want = direct.routings(texts=texts)
    for layer, weight_E in found.items():
        torch.testing.assert_close(weight_E.float(), want[layer].weight.mean(0))
        torch.testing.assert_close(weight_E, again[layer])


def test_the_mean_input_is_the_mean_embedding(specialists: UnifiedModel) -> None:
    seen: list[torch.Tensor] = []
    embeddings = specialists.backbone.model.embeddings
    handle = embeddings.register_forward_hook(lambda module, given, output: seen.append(output.detach()[0]))  # type: ignore[operator]
    found = mean_input(specialists, batches, "rerank", 1)
    handle.remove()
    examples = batches("rerank", 0)
    pack = specialists.tokens.pairs([(example.query, text) for example in examples for text in example.documents])
    means = [part.mean(0) for part in torch.cat(seen).split(list(pack.lengths))]
    torch.testing.assert_close(found, torch.stack(means).mean(0))


def test_a_router_is_put_over_the_very_same_experts(specialists: UnifiedModel) -> None:
    before = {id(parameter) for layer in mixtures(specialists) for parameter in layer.bank.parameters()}
    route_over("topk", {"k": 2, "level": "sequence"}, "block")(specialists, batches)
    assert {id(parameter) for layer in mixtures(specialists) for parameter in layer.bank.parameters()} == before
    plan = specialists.spec.plan
    assert (plan.router, plan.router_options, plan.scope) == ("topk", {"k": 2, "level": "sequence"}, "block")
    assert plan.roster(TASKS).visible(("rerank",)) == ("embedding", "reranking", "shared")
    weights = [routing.weight for routing in specialists.routings(texts=["ba du", "fe"]).values()]
    assert len({id(weight) for weight in weights}) == 2
    assert all(((weight > 0).sum(-1) == 2).all() for weight in weights)


def test_without_experts_there_is_nothing_to_route_over(backbone_dir: Path) -> None:
    with pytest.raises(ConfigError, match="has no experts to route over"):
        route_over("mole", {}, "block")(tiny_unified(backbone_dir), batches)


@pytest.mark.parametrize(("router", "options"), [("ramole", {"k": 2}), ("xlora", {"after": 1}), ("xlora", {})])
def test_what_a_layer_leaves_for_later_ones_survives_recomputation(backbone_dir: Path, router: str, options: dict[str, int]) -> None:
    """A pass that is checkpointed, or done again in pieces for cached gradients, gives the gradients of the plain one."""
    found = []
    for task, again in ((None, False), (None, True), ({"cache_tokens": 1}, False)):
        model = stirred(tiny_unified(backbone_dir, LayerPlan(THREE), **({"retrieve": task} if task else {})))
        route_over(router, options, "block" if router == "xlora" else "linear")(model, batches)
        stirred(model, seed=1)
        for layer in mixtures(model):
            if isinstance(layer.router, RamoleRouter):
                layer.router.drop(0.5, step=3)
                assert any(layer.router.get_buffer(f"dropped>{each.name}") for each in THREE)
        model.backbone.gradient_checkpointing(again)
        for name in TASKS:
            module = model.tasks[name]
            assert isinstance(module, Task)
            module.step(batches(name, 0), StepContext(model.encoder, lambda loss: loss.backward()))
        found.append(gradients(model))
    assert any(".router." in name for name in found[0])
    for other in found[1:]:
        assert_close(other, found[0], 1e-5)
