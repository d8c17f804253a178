"""The measured memory of models: it holds the weights, once for each model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_model
from tests.tiny_trial import LENGTHS, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.model import folder
from twofold.model.build import build_model
from twofold.model.footprint import footprint
from twofold.model.spec import ModelSpec


def test_it_grows_with_the_weights(tmp_path: Path) -> None:
    """Experts of 48 MB, which serving holds apart and stacked; the bare backbone of kilobytes weighs next to nothing."""
    write_backbone(tmp_path / "backbone")
    linears = sum(hasattr(module, "in_features") for module in tiny_model("bert").encoder.modules())
    rank = 48_000_000 // 4 // (linears * 2 * 32)
    plan = LayerPlan((Expert("large", rank),))
    model = build_model(ModelSpec(str(tmp_path / "backbone"), {"retrieve": {}, "rerank": {}}, plan=plan, **LENGTHS))
    megabytes = sum(parameter.numel() * 4 for parameter in model.parameters()) / 1e6
    folder.save(model, tmp_path / "model", facts={})
    assert footprint(tmp_path / "model") == pytest.approx(2 * megabytes, rel=0.3)
    assert footprint(tmp_path / "model", apart=2) < megabytes / 3


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="could not measure the memory of"):
        footprint(tmp_path)
