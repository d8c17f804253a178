"""`permuted`: at test a text has another text's weights, whatever is beside it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from tests.routers.roster import EXPERTS, ROSTER, build, weights, widen
from twofold.core.routing import Batch, running
from twofold.routers.permuted import PermutedRouter, donor_of

DONORS = 4


def filled() -> PermutedRouter:
    """A router whose donors of retrieve are 1, 2, 3, 4 and of rerank 11, 12, 13, 14 in every expert."""
    router = cast(PermutedRouter, widen(build("permuted", donors=DONORS)))
    rows = torch.arange(1.0, DONORS + 1)[:, None].expand(DONORS, len(EXPERTS))
    router.donor_KNE.copy_(torch.stack([rows, rows + 10]))
    return router.eval()


def stream(lengths: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(1, sum(lengths), 8, generator=torch.Generator().manual_seed(seed))


def test_in_training_it_is_soft() -> None:
    permuted, soft = widen(build("permuted")), widen(build("soft"))
    assert torch.equal(weights(permuted)[0], weights(soft)[0])


def test_at_test_every_text_has_some_donors_weights_of_its_own_task() -> None:
    x, batch = stream((2,) * 40), Batch(("retrieve", "rerank") * 20, (2,) * 40)
    weight, level, _ = filled()(x, x, batch, EXPERTS)
    assert level == "sequence"
    assert set(weight[::2, 0].tolist()) == {1, 2, 3, 4} and set(weight[1::2, 0].tolist()) == {11, 12, 13, 14}
    task = Batch("retrieve", (2,))
    assert filled()(x[:, :2], x, task, ROSTER.visible(("retrieve",)))[0].shape == (1, 2)


def test_it_depends_on_the_text_alone_and_not_on_the_scores() -> None:
    router, lengths = filled(), (3, 2, 4)
    x = stream(lengths)
    together = router(x, x, Batch("rerank", lengths), EXPERTS)[0]
    alone = [router(part, part, Batch("rerank", (part.shape[1],)), EXPERTS)[0] for part in x.split(list(lengths), dim=1)]
    assert torch.equal(together, torch.cat(alone))
    for parameter in router.parameters():
        parameter.data.normal_()
    assert torch.equal(router(x, x, Batch("rerank", lengths), EXPERTS)[0], together)


def test_the_donor_is_the_same_in_every_layer_of_a_pass() -> None:
    router, batch = filled(), Batch("rerank", (2,) * 20)
    with running(batch):
        first = router(stream((2,) * 20, 0), stream((2,) * 20), batch, EXPERTS)[0]
        second = router(stream((2,) * 20, 1), stream((2,) * 20), batch, EXPERTS)[0]
    assert torch.equal(first, second)
    assert not torch.equal(first, router(stream((2,) * 20, 1), stream((2,) * 20), Batch("rerank", (2,) * 20), EXPERTS)[0])


def test_donors_are_drawn_about_equally_often() -> None:
    counts = donor_of(torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)), 8).bincount(minlength=8)
    assert counts.min() > 400 and counts.max() < 600


def test_before_training_all_weights_are_one() -> None:
    router = build("permuted").eval()
    assert weights(router, ("retrieve", "rerank"))[0].tolist() == [[1, 1, 0], [1, 1, 1]]
