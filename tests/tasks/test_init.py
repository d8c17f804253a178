"""`run_chunks`: chunks change neither values nor order, and the auxiliary loss is a mean over texts."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.tasks.conftest import MakeModel
from twofold.backbone.packed import Pack
from twofold.core.routing import Routing
from twofold.tasks import World, run_chunks


def test_chunks_come_back_in_the_callers_order(make_model: MakeModel) -> None:
    encoder = make_model().encoder
    pack = encoder.tokens.texts(["a", "a fox runs over the dog", "red fox", "what is it", "the lazy dog"])

    def head(hidden_TD: Tensor, chunk: Pack) -> Tensor:
        return encoder.backbone.pool(hidden_TD, chunk)

    with torch.no_grad():
        whole, nothing = run_chunks(encoder, pack, "retrieve", 10_000, head)
        pieces, _ = run_chunks(encoder, pack, "retrieve", 9, head)
    assert nothing is None
    assert torch.allclose(whole, pieces, atol=1e-6)


def test_the_auxiliary_loss_is_the_mean_over_texts(make_model: MakeModel) -> None:
    encoder = make_model().encoder
    pack = encoder.tokens.texts(["a", "a fox runs over the dog", "red fox", "what is it"])
    asked: list[int] = []

    def first_weight(routings: dict[str, Routing]) -> Tensor:
        asked.append(len(routings))
        weight_SE = next(iter(routings.values())).weight
        return weight_SE[:, 0].mean()

    def head(hidden_TD: Tensor, chunk: Pack) -> Tensor:
        return encoder.backbone.pool(hidden_TD, chunk)

    with torch.no_grad():
        _, whole = run_chunks(encoder, pack, "retrieve", 10_000, head, first_weight)
        _, pieces = run_chunks(encoder, pack, "retrieve", 9, head, first_weight)
    assert whole is not None
    assert pieces is not None
    assert torch.allclose(whole, pieces, atol=1e-6)
    assert len(asked) > 2
    assert asked[0] > 1


def test_a_process_alone_gathers_its_own() -> None:
    tensor = torch.ones(2)
    assert World().gather(tensor) is tensor
