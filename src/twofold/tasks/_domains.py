"""Domains of queries: a centroid of unit vectors for each, learnt while training, and the nearest one of a new query.

RouterRetriever (Lee et al. 2025, arXiv 2409.02685) has a domain per dataset, and finds centroids ("pilots") afterwards, by which expert
serves a training query best. Here a query of a dataset of that name belongs to its domain, and any other to the nearest, of which the
first queries are the first centroids (MacQueen 1967): so one corpus has domains too. Shapes: N queries, C domains, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Domains(nn.Module):
    """The centroids are buffers, so that they are saved with the model and go on with a training that was stopped."""

    centroid_CD: Tensor
    count_C: Tensor

    def __init__(self, names: Sequence[str], width: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("centroid_CD", torch.zeros(len(self.names), width))
        self.register_buffer("count_C", torch.zeros(len(self.names)))

    def nearest(self, vector_ND: Tensor) -> list[int]:
        """The domain whose centroid has the largest cosine, of those that have had a query; the first where none has."""
        near_NC = vector_ND @ nn.functional.normalize(self.centroid_CD, dim=-1).T
        found: list[int] = near_NC.masked_fill(self.count_C == 0, -2.0).argmax(-1).tolist()
        return found

    @torch.no_grad()
    def learn(self, vector_ND: Tensor, datasets: Sequence[str]) -> list[int]:
        """Each query's domain; its centroid becomes the mean of all queries that it has had, in this order."""
        found: list[int] = []
        for vector_D, dataset in zip(vector_ND.float(), datasets, strict=True):
            fresh = int((self.count_C == 0).int().argmax()) if bool((self.count_C == 0).any()) else None
            own = self.names.index(dataset) if dataset in self.names else fresh
            found.append(self.nearest(vector_D[None])[0] if own is None else own)
            self.count_C[found[-1]] += 1
            self.centroid_CD[found[-1]] += (vector_D - self.centroid_CD[found[-1]]) / self.count_C[found[-1]]
        return found
