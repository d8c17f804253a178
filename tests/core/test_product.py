"""Whichever library makes the product, it is the same one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from twofold.core import product
from twofold.core.product import linear


@pytest.mark.parametrize("shape", [(600, 40), (600, 1100), (2, 600, 40), (3, 40), (40,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("columns", [4, 24])
def test_it_is_the_product(shape: tuple[int, ...], bias: bool, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.backends.mkldnn.is_available():
        monkeypatch.setattr(product, "foreign", lambda: True)
    x, weight, add = torch.randn(shape), torch.randn(columns, shape[-1]), torch.randn(columns) if bias else None
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight, add), F.linear(x, weight, add), rtol=1e-5, atol=1e-4)


def test_where_gradients_are_kept_they_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "foreign", lambda: True)
    x, weight = torch.randn(600, 40), torch.randn(24, 40, requires_grad=True)
    linear(x, weight).sum().backward()
    assert weight.grad is not None and torch.allclose(weight.grad, x.sum(0).expand(24, 40), atol=1e-3)


def test_other_types_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "foreign", lambda: True)
    x, weight = torch.randn(600, 40), torch.randn(24, 40)
    with torch.inference_mode():
        assert torch.equal(linear(x.double(), weight.double()), F.linear(x.double(), weight.double()))
        assert linear(x.bfloat16(), weight.bfloat16()).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("named", "capability", "wanted"), [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("Intel", "AVX512", False)]
)
def test_the_processor_decides(named: str, capability: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product.platform, "processor", lambda: named)
    monkeypatch.setattr(product.Path, "is_file", lambda _: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for library in (product.MKL, product.ONEDNN):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert product.foreign.__wrapped__() is wanted
