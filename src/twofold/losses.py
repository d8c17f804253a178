"""Losses: pure functions of tensors. N queries, M documents, L documents of one list, D features; scores are higher for better."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def false_negative_mask(similarity_NM: Tensor, positive_N: Tensor, margin: float, relevant_NM: Tensor | None = None) -> Tensor:
    """True for the columns that a query may count as negatives, or that are its positive.

    Left out: documents nearer than the positive by more than `margin`, which are likely relevant, and those known to be
    relevant (`relevant_NM`), such as copies of the positive. Qwen3-Embedding, arXiv 2506.05176, section 3.
    """
    own_N1 = similarity_NM.gather(1, positive_N[:, None])
    keep_NM = similarity_NM <= own_N1 + margin
    if relevant_NM is not None:
        keep_NM &= ~relevant_NM
    return keep_NM.scatter(1, positive_N[:, None], True)


def info_nce(
    query_ND: Tensor,
    document_MD: Tensor,
    positive_N: Tensor,
    *,
    temperature: float = 0.05,
    margin: float | None = 0.1,
    relevant_NM: Tensor | None = None,
    query_negatives: bool = False,
    document_negatives: bool = False,
) -> Tensor:
    """InfoNCE of unit vectors over all documents of the batch; (N,) losses (van den Oord et al. 2018, arXiv 1807.03748).

    `positive_N`: each query's positive among the M documents; `relevant_NM`: where a document is known to be relevant, so
    no negative. `margin` masks likely false negatives too (None: only the known ones). `query_negatives` and
    `document_negatives` add the other queries against the query, and the other documents against the positive, to the
    denominator, as Qwen3-Embedding does; there, too, what is nearer than the positive by more than the margin is left out.
    """
    allowed = float("inf") if margin is None else margin
    similarity_NM = query_ND @ document_MD.T
    known_NM = torch.zeros_like(similarity_NM, dtype=torch.bool) if relevant_NM is None else relevant_NM
    ceiling_N1 = similarity_NM.detach().gather(1, positive_N[:, None]) + allowed
    blocks, keeps = [similarity_NM], [false_negative_mask(similarity_NM.detach(), positive_N, allowed, relevant_NM)]
    if query_negatives:
        other_NN = query_ND @ query_ND.T
        itself = torch.arange(len(query_ND), device=query_ND.device)
        blocks.append(other_NN)  # a query whose positive is relevant here asks for the same
        keeps.append(((other_NN.detach() <= ceiling_N1) & ~known_NM[:, positive_N]).scatter(1, itself[:, None], False))
    if document_negatives:
        other_NM = document_MD[positive_N] @ document_MD.T
        blocks.append(other_NM)
        keeps.append(((other_NM.detach() <= ceiling_N1) & ~known_NM).scatter(1, positive_N[:, None], False))
    logits = torch.cat(blocks, dim=1) / temperature
    return F.cross_entropy(logits.masked_fill(~torch.cat(keeps, dim=1), float("-inf")), positive_N, reduction="none")


def matryoshka(query_ND: Tensor, document_MD: Tensor, dims: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """The first d features of both sides, normalised again, for every d (Kusupati et al. 2022, arXiv 2205.13147)."""
    return [(F.normalize(query_ND[:, :d], dim=-1), F.normalize(document_MD[:, :d], dim=-1)) for d in dims]


def listwise_softmax(score_L: Tensor, grade_L: Tensor) -> Tensor:
    """Cross-entropy between the softmax of the scores and the grades made a distribution (ListNet, Cao et al. 2007).

    With one relevant document it is the softmax loss of that document. Raises ValueError without a positive grade.
    """
    if not bool((grade_L > 0).any()):
        raise ValueError("listwise_softmax: a list without a relevant document has no target")
    target_L = grade_L.clamp_min(0).to(score_L.dtype)
    return -(target_L / target_L.sum() * score_L.log_softmax(0)).sum()


def ranknet(score_L: Tensor, grade_L: Tensor) -> Tensor:
    """Mean of log(1 + exp(s_j − s_i)) over all pairs with grade i > grade j (Burges et al. 2005); 0 without such a pair."""
    better_LL = grade_L[:, None] > grade_L[None, :]
    if not bool(better_LL.any()):
        return score_L.sum() * 0
    return F.softplus(score_L[None, :] - score_L[:, None])[better_LL].mean()


def pointwise_bce(score_L: Tensor, grade_L: Tensor) -> Tensor:
    """Binary cross-entropy of each score; a grade of g out of the list's highest counts as the probability g / highest (at least 1)."""
    target_L = grade_L.clamp_min(0).to(score_L.dtype)
    return F.binary_cross_entropy_with_logits(score_L, target_L / target_L.max().clamp_min(1))


def margin_mse(score_L: Tensor, teacher_L: Tensor) -> Tensor:
    """Squared error of the margins between the list's first document and the others (Hofstätter et al. 2020, arXiv 2010.02666).

    Raises ValueError for a list of one document, which has no margin.
    """
    if len(score_L) < 2:
        raise ValueError("margin_mse: a list of one document has no margin; give it negatives")
    return F.mse_loss(score_L[0] - score_L[1:], teacher_L[0] - teacher_L[1:])


def listwise_kl(score_L: Tensor, teacher_L: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence from the student's softmax over the list to the teacher's, whose scores are divided by `temperature`."""
    return F.kl_div(score_L.log_softmax(0), (teacher_L / temperature).softmax(0), reduction="sum")


def switch_balance(share_E: Tensor, probability_E: Tensor) -> Tensor:
    """E · Σ share · probability: how large a part of the choices each expert got, and its mean probability (Fedus et al. 2022,
    arXiv 2101.03961). 1 where either is uniform; only the probabilities carry a gradient, which pushes down what is chosen most."""
    return len(share_E) * (share_E.detach() * probability_E).sum()


def squared_variation(importance_E: Tensor) -> Tensor:
    """Variance over squared mean (Shazeer et al. 2017, arXiv 1701.06538): 0 where all are equal, whatever their size."""
    return importance_E.var() / importance_E.mean().square().clamp_min(1e-10)


def gaussian_kl(mean_F: Tensor, variance_F: Tensor, other_F: Tensor, other_variance_F: Tensor, floor: float = 1e-6) -> Tensor:
    """(F,) symmetric KL divergence, KL(p‖q) + KL(q‖p), of two Gaussians per feature; variances count as at least `floor`."""
    a_F, b_F = variance_F.clamp_min(floor), other_variance_F.clamp_min(floor)
    square_F = (mean_F - other_F).square()
    return ((a_F + square_F) / b_F + (b_F + square_F) / a_F) / 2 - 1
