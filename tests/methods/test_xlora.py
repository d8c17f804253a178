"""One classifier in front of frozen specialists."""

from __future__ import annotations

from twofold.methods.xlora import build
from twofold.model.unified import UnifiedModel

TEXTS = ["ba du", "fe gi ho"]


def test_only_the_classifier_learns() -> None:
    (stage,) = build(tasks=("retrieve", "rerank")).members[0].stages
    assert stage.trains == ("router",)


def test_blocks_before_the_hidden_state_run_without_experts(specialists: UnifiedModel) -> None:
    (member,) = build(tasks=("retrieve", "rerank"), after=1).members
    assert member.before is not None
    member.before(specialists, lambda task, step: [])
    routings = specialists.routings(texts=TEXTS)
    early = {layer for layer, routing in routings.items() if not routing.weight.any()}
    assert early == {layer for layer in routings if ".layer.0." in layer}
    gates = {id(routing.weight): routing for layer, routing in routings.items() if layer not in early}
    assert [routing.level for routing in gates.values()] == ["token"]
