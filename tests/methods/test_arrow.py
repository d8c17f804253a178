"""Arrow trains nothing and moves no expert."""

from __future__ import annotations

import numpy as np
import torch

from twofold.core.inject import mixtures
from twofold.methods.arrow import build
from twofold.model.unified import UnifiedModel

TEXTS = ["ba du", "fe gi ho"]


def test_it_routes_each_token_over_the_experts_as_they_are(specialists: UnifiedModel) -> None:
    (member,) = build(tasks=("retrieve", "rerank"), k=2).members
    assert member.stages == () and member.before is not None
    before, vectors = {layer.layer: layer.bank for layer in mixtures(specialists)}, specialists.encode(TEXTS)
    member.before(specialists, lambda task, step: [])
    assert all(layer.bank is before[layer.layer] for layer in mixtures(specialists))
    for routing in specialists.routings(texts=TEXTS).values():
        assert routing.level == "token"
        assert ((routing.weight > 0).sum(-1) == 2).all()
        torch.testing.assert_close(routing.weight.sum(-1), torch.ones(routing.weight.shape[:-1]))
    assert not np.allclose(specialists.encode(TEXTS), vectors, atol=1e-4)
