"""Every loss against a slow plain version of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests.reference import losses as slow
from tests.reference import methods
from twofold import losses

LISTS = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-8, 8, width=32), min_size=n, max_size=n),
        st.lists(st.sampled_from([0, 1, 2, 3]), min_size=n, max_size=n),
        st.lists(st.floats(-5, 5, width=32), min_size=n, max_size=n),
    )
)


def unit(n: int, seed: int, width: int = 6) -> Tensor:
    return F.normalize(torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("document_negatives", [False, True])
@pytest.mark.parametrize("query_negatives", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("margin", [None, 0.0, 0.1])
def test_info_nce_is_the_plain_sum(margin: float | None, known: bool, query_negatives: bool, document_negatives: bool) -> None:
    query_ND, document_MD, positive_N = unit(5, 1), unit(9, 2), torch.tensor([0, 2, 4, 5, 8])
    relevant_NM = torch.zeros(5, 9, dtype=torch.bool)
    if known:
        relevant_NM[0, [0, 1]] = relevant_NM[1, [2, 4]] = relevant_NM[3, [5]] = True
    options: dict[str, Any] = {"query_negatives": query_negatives, "document_negatives": document_negatives}
    got = losses.info_nce(
        query_ND, document_MD, positive_N, temperature=0.3, margin=margin, relevant_NM=relevant_NM if known else None, **options
    )
    lists = query_ND.tolist(), document_MD.tolist(), positive_N.tolist()
    want = slow.info_nce(*lists, 0.3, margin, relevant_NM.tolist(), **options)
    assert got.tolist() == pytest.approx(want, abs=1e-10)


def test_what_is_masked_gets_no_gradient_and_the_positive_always_one() -> None:
    query_ND = torch.tensor([[1.0, 0.0]])
    document_MD = torch.tensor([[0.6, 0.8], [0.9, math.sqrt(0.19)], [0.65, math.sqrt(1 - 0.65**2)], [0.0, 1.0]], requires_grad=True)
    losses.info_nce(query_ND, document_MD, torch.tensor([0]), margin=0.1).sum().backward()
    assert document_MD.grad is not None
    moved = document_MD.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, True, True]  # .9 is more than .1 nearer than the positive's .6, and .65 is not


def test_the_mask_is_a_mask_and_no_term_of_the_loss() -> None:
    """The threshold follows the positive's similarity, but no gradient flows through the comparison."""
    mask = losses.false_negative_mask(torch.tensor([[0.5, 0.7, 0.59]]), torch.tensor([0]), 0.1, torch.tensor([[True, False, True]]))
    assert mask.tolist() == [[True, False, False]]


def test_copies_of_the_positive_are_no_negatives() -> None:
    query_ND, document_MD = unit(1, 3), unit(2, 4)
    twice = torch.cat([document_MD, document_MD[:1]])
    alone = losses.info_nce(query_ND, document_MD, torch.tensor([0]), margin=None)
    same = losses.info_nce(query_ND, twice, torch.tensor([0]), margin=None, relevant_NM=torch.tensor([[True, False, True]]))
    assert torch.equal(alone, same)


def test_matryoshka_cuts_and_normalises() -> None:
    query_ND, document_MD = unit(2, 5), unit(3, 6)
    (small_q, small_d), (whole_q, _) = losses.matryoshka(query_ND, document_MD, (2, 6))
    assert small_q.shape == (2, 2)
    assert small_d.shape == (3, 2)
    assert torch.allclose(small_q.norm(dim=-1), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(whole_q, query_ND)
    assert torch.allclose(small_d, document_MD[:, :2] / document_MD[:, :2].norm(dim=-1, keepdim=True))


@settings(deadline=None, max_examples=60)
@given(LISTS)
def test_list_losses_are_their_plain_versions(drawn: tuple[list[float], list[int], list[float]]) -> None:
    scores, grades, teacher = drawn
    score_L, grade_L, teacher_L = (torch.tensor(values, dtype=torch.float64) for values in drawn)
    assert float(losses.ranknet(score_L, grade_L)) == pytest.approx(slow.ranknet(scores, grades), abs=1e-9)
    assert float(losses.pointwise_bce(score_L, grade_L)) == pytest.approx(slow.pointwise_bce(scores, grades), abs=1e-9)
    assert float(losses.margin_mse(score_L, teacher_L)) == pytest.approx(slow.margin_mse(scores, teacher), abs=1e-9)
    assert float(losses.listwise_kl(score_L, teacher_L, 2.0)) == pytest.approx(slow.listwise_kl(scores, teacher, 2.0), abs=1e-9)
    if any(grades):
        assert float(losses.listwise_softmax(score_L, grade_L)) == pytest.approx(slow.listwise_softmax(scores, grades), abs=1e-9)


def test_one_relevant_document_makes_listwise_softmax_cross_entropy() -> None:
    score_L = torch.tensor([0.3, 2.0, -1.0])
    want = F.cross_entropy(score_L[None], torch.tensor([1]))
    assert float(losses.listwise_softmax(score_L, torch.tensor([0, 1, 0]))) == pytest.approx(float(want))


def test_grades_count_as_grades() -> None:
    score_L = torch.tensor([1.0, 1.0], requires_grad=True)
    losses.listwise_softmax(score_L, torch.tensor([3, 1])).backward()
    assert score_L.grad is not None
    assert score_L.grad.tolist() == pytest.approx([-0.25, 0.25])
    halves = losses.pointwise_bce(torch.tensor([0.0]), torch.tensor([1.0]))
    assert float(halves) == pytest.approx(math.log(2))


def test_a_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    teacher_L = torch.tensor([3.0, 1.0, -2.0])
    score_L = (teacher_L + 5).requires_grad_()  # both losses look at differences only
    (losses.margin_mse(score_L, teacher_L) + losses.listwise_kl(score_L, teacher_L)).backward()
    assert score_L.grad is not None
    assert score_L.grad.abs().max() < 1e-6


def test_the_switch_balance_is_the_plain_sum_and_only_probabilities_learn() -> None:
    probability_TE = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], requires_grad=True)
    share_E = torch.tensor([0.5, 0.25, 0.25], requires_grad=True)
    got = losses.switch_balance(share_E, probability_TE.mean(0))
    assert got.item() == pytest.approx(methods.switch_balance([[0, 1], [0, 2]], probability_TE.tolist()))
    got.backward()
    assert share_E.grad is None and probability_TE.grad is not None
    assert losses.switch_balance(torch.full((3,), 1 / 3), torch.tensor([0.9, 0.1, 0.0])).item() == pytest.approx(1)


@given(st.lists(st.floats(0.1, 5), min_size=2, max_size=6))
def test_the_squared_variation_knows_no_size(values: list[float]) -> None:
    got = losses.squared_variation(torch.tensor(values, dtype=torch.float64)).item()
    assert got == pytest.approx(methods.variance(values) / (sum(values) / len(values)) ** 2, abs=1e-9)
    assert losses.squared_variation(torch.tensor(values, dtype=torch.float64) * 7).item() == pytest.approx(got, abs=1e-9)
    assert losses.squared_variation(torch.ones(3)).item() == 0


@pytest.mark.parametrize(("mean", "var", "other", "other_var"), [(0.0, 1.0, 0.0, 1.0), (1.0, 0.5, -0.5, 2.0), (0.2, 3.0, 0.3, 0.1)])
def test_the_gaussian_divergence_is_its_integral(mean: float, var: float, other: float, other_var: float) -> None:
    got = losses.gaussian_kl(*(torch.tensor([value], dtype=torch.float64) for value in (mean, var, other, other_var)))
    assert got.item() == pytest.approx(methods.symmetric_kl(mean, var, other, other_var), rel=1e-4, abs=1e-6)


def test_lists_without_a_target_say_so() -> None:
    with pytest.raises(ValueError, match="without a relevant document"):
        losses.listwise_softmax(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="no margin"):
        losses.margin_mse(torch.zeros(1), torch.zeros(1))
    score_L = torch.zeros(2, requires_grad=True)
    losses.ranknet(score_L, torch.ones(2)).backward()
    assert score_L.grad is not None
    assert score_L.grad.tolist() == [0, 0]
