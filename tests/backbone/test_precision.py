"""The precision that is chosen is the faster one, by what was timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny_trial import tiny_unified, write_backbone
from twofold.backbone import precision
from twofold.model import folder


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    precision.fastest.cache_clear()
    yield
    precision.fastest.cache_clear()


@pytest.mark.parametrize(("fp32", "bf16", "wanted"), [(2.0, 1.0, "bf16"), (1.1, 1.0, "fp32"), (1.0, 20.0, "fp32")])
def test_bf16_has_to_be_worth_its_rounding(fp32: float, bf16: float, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "seconds", {torch.float32: fp32, torch.bfloat16: bf16}.__getitem__)
    assert precision.fastest("cpu") == wanted
    assert precision.fastest("meta") == "fp32"


def test_the_least_round_counts_and_the_first_does_not() -> None:
    ticks = iter([0.0, 0.1, *(value for i in range(1, 8) for value in (10.0 * i, 10.0 * i + 8 - i))])
    assert precision.seconds(torch.float32, lambda: next(ticks)) == 1.0


def test_it_is_asked_once_and_a_model_opens_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save(tiny_unified(write_backbone(tmp_path / "backbone")), tmp_path / "model")
    monkeypatch.setattr(precision, "seconds", {torch.float32: 2.0, torch.bfloat16: 1.0}.__getitem__)
    assert folder.load(tmp_path / "model", precision="auto").spec.precision == "bf16"
    monkeypatch.setattr(precision, "seconds", {}.__getitem__)
    assert folder.load_system(tmp_path / "model", precision="auto").embedder.backbone.autocast
    assert folder.load(tmp_path / "model").spec.precision == "fp32"
    folder.save(folder.load(tmp_path / "model", precision="bf16-weights"), tmp_path / "half")
    assert folder.load(tmp_path / "half", precision="auto").spec.precision == "bf16-weights"
