"""The packed stream: order, chunks, and attention that stays inside each segment, against its plain form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import tiny_pack
from twofold.backbone.packed import attend, make_pack, no_mask, split

LENGTHS = (7, 7, 4, 1)
H, D = 4, 8


def plain(q: Tensor, k: Tensor, v: Tensor, *, scaling: float | None, causal: bool, window: int | None, softcap: float | None) -> Tensor:
    """Softmax attention of one segment, (H, L, d) each, as it is written in books."""
    score = q @ k.transpose(-1, -2) * (scaling if scaling is not None else D**-0.5)
    if softcap is not None:
        score = softcap * torch.tanh(score / softcap)
    i, j = torch.arange(q.shape[1])[:, None], torch.arange(q.shape[1])[None]
    seen = torch.ones_like(i + j, dtype=torch.bool)
    if causal:
        seen &= j <= i
    if window is not None:
        seen &= (i - j).abs() < window
    return score.masked_fill(~seen, float("-inf")).softmax(-1) @ v


def stream(heads: int = H) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, n, sum(LENGTHS), D, requires_grad=True) for n in (H, heads, heads)]


def ends(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0).int()


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "scaling"), [(4, None), (2, 0.7)])
def test_attention_equals_its_plain_form_segment_by_segment(
    heads: int, scaling: float | None, causal: bool, window: int | None, softcap: float | None
) -> None:
    q, k, v = stream(heads)
    options: dict[str, Any] = {"scaling": scaling, "is_causal": causal, "sliding_window": window, "softcap": softcap}
    got, nothing = attend(nn.Identity(), q, k, v, None, cu_seq_lens_q=ends(LENGTHS), max_length_q=7, **options)
    assert got.shape == (1, 19, H, D) and nothing is None
    wide_k, wide_v = (tensor.repeat_interleave(H // heads, 1) for tensor in (k, v))
    parts = [
        plain(*(tensor[0, :, a:b] for tensor in (q, wide_k, wide_v)), scaling=scaling, causal=causal, window=window, softcap=softcap)
        for a, b in pairwise(ends(LENGTHS).tolist())
    ]
    want = torch.cat(parts, 1).transpose(0, 1)[None]
    torch.testing.assert_close(got, want)
    for tensor, slow in zip(
        torch.autograd.grad(got.square().sum(), (q, k, v)), torch.autograd.grad(want.square().sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(tensor, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_with_gradients_a_cpu_attends_in_fp32_also_under_autocast(softcap: float | None) -> None:
    options: dict[str, Any] = {"cu_seq_lens_q": ends(LENGTHS), "max_length_q": 7, "softcap": softcap}
    wide = [tensor.detach().bfloat16().float().requires_grad_() for tensor in stream()]
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in wide]
    want = attend(nn.Identity(), *wide, None, **options)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = attend(nn.Identity(), *half, None, **options)[0]
    assert got.dtype == torch.bfloat16 and torch.equal(got, want.bfloat16())
    weight = torch.randn(want.shape).bfloat16()
    for a, b in zip(torch.autograd.grad(got, half, weight), torch.autograd.grad(want, wide, weight.float()), strict=True):
        assert torch.equal(a, b.bfloat16())


def test_a_segment_does_not_meet_its_neighbours() -> None:
    q, k, v = (tensor.detach() for tensor in stream())
    before, _ = attend(nn.Identity(), q, k, v, None, is_causal=False, cu_seq_lens_q=ends(LENGTHS), max_length_q=7)
    for tensor in (q, k, v):
        tensor[:, :, 7:14] = 1e4
    after, _ = attend(nn.Identity(), q, k, v, None, is_causal=False, cu_seq_lens_q=ends(LENGTHS), max_length_q=7)
    assert torch.equal(before[:, :7], after[:, :7]) and torch.equal(before[:, 14:], after[:, 14:])


def test_causal_order_comes_from_the_module_unless_it_is_given() -> None:
    q, k, v = stream()
    options: dict[str, Any] = {"cu_seq_lens_q": ends(LENGTHS), "max_length_q": 7}
    module = nn.Identity()
    module.is_causal = False
    free, _ = attend(module, q, k, v, None, **options)
    module.is_causal = True
    causal, _ = attend(module, q, k, v, None, **options)
    assert not torch.allclose(free, causal)
    torch.testing.assert_close(attend(module, q, k, v, None, is_causal=False, **options)[0], free)


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_dropout_drops(softcap: float | None) -> None:
    q, k, v = stream()
    options: dict[str, Any] = {"is_causal": False, "cu_seq_lens_q": ends(LENGTHS), "max_length_q": 7, "softcap": softcap}
    kept, _ = attend(nn.Identity(), q, k, v, None, **options)
    dropped, _ = attend(nn.Identity(), q, k, v, None, dropout=0.5, **options)
    assert not torch.allclose(kept, dropped)


def test_it_needs_to_know_the_segments() -> None:
    with pytest.raises(ValueError, match="cu_seq_lens_q"):
        attend(nn.Identity(), *stream(), None)
    assert no_mask(1, anything=2) is None


def test_a_pack_is_sorted_by_length_and_remembers_the_order() -> None:
    pack = make_pack([([7], [0], [1]), ([1, 2, 3], [0, 0, 1], [0, 1, 2]), ([8], [1], [2])], truncated=2)
    assert pack.input_ids_T.tolist() == [1, 2, 3, 7, 8]
    assert pack.type_ids_T.tolist() == [0, 0, 1, 0, 1] and pack.part_T.tolist() == [0, 1, 2, 1, 2]
    assert (pack.lengths, pack.order, pack.truncated, pack.tokens) == ((3, 1, 1), (1, 0, 2), 2, 5)
    assert pack.to(torch.device("cpu")).order == pack.order


@pytest.mark.parametrize("nothing", [[], [([], [], [])], [([1], [0], [1]), ([], [], [])]])
def test_nothing_does_not_pack(nothing: list[Any]) -> None:
    with pytest.raises(ValueError, match="nothing to pack"):
        make_pack(nothing)


@pytest.mark.parametrize(("budget", "sizes"), [(1, [1, 1, 1, 1, 1]), (8, [1, 1, 2, 1]), (10, [1, 2, 2]), (1000, [5])])
def test_splitting_keeps_every_text_once_and_within_the_budget(budget: int, sizes: list[int]) -> None:
    pack = tiny_pack((2, 9, 3, 4, 5))
    chunks = split(pack, budget)
    assert [len(chunk.lengths) for chunk, _ in chunks] == sizes
    assert all(chunk.tokens <= budget or len(chunk.lengths) == 1 for chunk, _ in chunks)
    assert torch.cat([chunk.input_ids_T for chunk, _ in chunks]).equal(pack.input_ids_T)
    assert tuple(i for _, at in chunks for i in at) == pack.order
    assert all(chunk.order == tuple(range(len(at))) == tuple(range(len(chunk.lengths))) for chunk, at in chunks)
