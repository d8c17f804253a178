"""`ramole`: attention over the experts' updates, the choice by similarity, dropping, and experts that it never met."""

from __future__ import annotations

import pytest
import torch

from tests.reference import experts as reference
from tests.routers.roster import EXPERTS, LENGTHS, ROSTER, build, make_bank, widen
from twofold.core.routing import Batch, Roster
from twofold.routers.ramole import RamoleRouter

BANK = make_bank()
X = torch.randn(1, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(0))


def made(roster: Roster = ROSTER, **options: object) -> RamoleRouter:
    router = widen(build("ramole", roster, **options))
    assert isinstance(router, RamoleRouter)
    return router.eval()


def weights(router: RamoleRouter, task: str = "rerank", x: torch.Tensor = X) -> torch.Tensor:
    experts = router.roster.visible((task,))
    weight, level = router(x, make_bank(router.roster).down(x, experts), Batch(task, LENGTHS), experts)
    assert level == "token"
    return weight.detach()


def test_it_is_attention_of_the_token_over_the_experts_updates() -> None:
    router = made(rank=4)
    factors = {name: (BANK.a[name].detach(), 2.0 * BANK.b[name].detach()) for name in EXPERTS}
    torch.testing.assert_close(weights(router)[0], reference.ramole(X[0], factors, router.down.detach(), router.up.detach()))


def test_a_fresh_one_mixes_evenly() -> None:
    torch.testing.assert_close(weights(build("ramole").eval()), torch.full((1, 6, 3), 1 / 3))  # type: ignore[arg-type]


def test_a_text_uses_the_experts_nearest_to_it_in_every_layer() -> None:
    router, later = made(k=1), made(k=1)
    first, second = X[0, : LENGTHS[0]].mean(0), X[0, LENGTHS[0] :].mean(0)
    for name, prototype in zip(EXPERTS, (second, first, -first), strict=True):
        router.meet(name, prototype)
    batch = Batch("rerank", LENGTHS)
    for layer in (router, later):  # the later layer knows no prototypes: the first one's choice holds
        weight, _ = layer(X, BANK.down(X, EXPERTS), batch, EXPERTS)
        assert weight[0].tolist() == [[0.0, 1.0, 0.0]] * LENGTHS[0] + [[1.0, 0.0, 0.0]] * LENGTHS[1]


def test_one_without_a_prototype_comes_first_and_an_unseen_one_never() -> None:
    router = made(k=2)
    router.meet("a", X[0].mean(0))
    router.meet("b", -X[0].mean(0))
    assert [bool(w) for w in weights(router)[0, 0]] == [True, False, True]
    assert [bool(w) for w in weights(router, "retrieve")[0, 0]] == [True, True]


def test_dropping_is_known_from_the_step_and_ends_with_training() -> None:
    router = made().train()

    def dropped(step: int) -> list[bool]:
        router.drop(0.5, step)
        return [bool(router.get_buffer(f"dropped>{name}")) for name in EXPERTS]

    seen = [dropped(step) for step in range(200)]
    assert seen == [dropped(step) for step in range(200)]
    assert 0.4 < sum(map(sum, seen)) / 600 < 0.6
    for step, gone in enumerate(seen[:20]):
        router.drop(0.5, step)
        assert [bool(w) for w in weights(router)[0, 0]] == ([True] * 3 if all(gone) else [not each for each in gone])
        assert (weights(router.eval()) > 0).all()
        router.train()


def test_it_routes_over_experts_that_it_never_met() -> None:
    """Trained over two, used over three: the same parameters, and the old two in the same proportion."""
    pair = Roster(("a", "b"), {"rerank": ("a", "b")})
    small, large = made(pair), made()
    assert {name: p.shape for name, p in small.named_parameters()} == {name: p.shape for name, p in large.named_parameters()}
    grown = weights(large)
    torch.testing.assert_close(weights(small), grown[..., :2] / grown[..., :2].sum(-1, keepdim=True))
    assert (grown[..., 2] > 0).all()


@pytest.mark.parametrize("options", [{"k": 0}, {"rank": 0}])
def test_it_needs_an_expert_and_a_rank(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="both are 1 or more"):
        build("ramole", **options)
