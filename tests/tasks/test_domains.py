"""Centroids of queries against a slow plain form."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from twofold.tasks._domains import Domains


def unit(n: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_clusters_are_macqueens() -> None:
    """The first vectors are the first centroids; every other goes to the nearest, which becomes the mean of what it has."""
    vectors, domains = unit(30), Domains(("a", "b", "c"), 5)
    members: list[list[torch.Tensor]] = [[], [], []]
    want = []
    for i, vector in enumerate(vectors):
        near = [float(F.cosine_similarity(vector, torch.stack(own).mean(0), dim=0)) if own else -2.0 for own in members]
        want.append(i if i < 3 else near.index(max(near)))
        members[want[-1]].append(vector)
    assert domains.learn(vectors[:11], [""] * 11) + domains.learn(vectors[11:], [""] * 19) == want
    assert domains.count_C.tolist() == [len(own) for own in members]
    torch.testing.assert_close(domains.centroid_CD, torch.stack([torch.stack(own).mean(0) for own in members]))
    assert all(len(own) > 1 for own in members)


def test_a_datasets_queries_are_its_domain() -> None:
    vectors, domains = unit(4), Domains(("scifact", "fiqa"), 5)
    assert domains.learn(vectors, ["fiqa", "scifact", "fiqa", "fiqa"]) == [1, 0, 1, 1]
    torch.testing.assert_close(domains.centroid_CD[1], vectors[[0, 2, 3]].mean(0))


def test_a_domain_without_queries_is_never_chosen() -> None:
    domains = Domains(("a", "b"), 5)
    assert domains.nearest(unit(2)) == [0, 0]
    domains.learn(unit(1), ["b"])
    assert domains.nearest(-unit(1)) == [1]
