"""The scripts for a GPU, as far as a CPU can take them: their dry runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.gpu import shapes, study

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "scifact").glob("*.toml"))
pytestmark = pytest.mark.filterwarnings("ignore")


def test_shapes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    content = shapes.main(["--dry-run", "--to", str(tmp_path / "shapes.json")])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "shapes.json").read_text())
    assert content["scoreboard"] == []
    assert {f"tiny: {name} / bare, bulk" for name in ("mixture", "folded", "transformers padded")} <= set(content["ratios"])
    assert content["ratios"]["tiny: weights, one model with experts / two models"]["value"] > 0.5
    assert content["figures"]["tiny"]["attention"] == "packed"


def test_every_shape_is_what_its_name_says() -> None:
    for name, shape in shapes.SHAPES.items():
        attention = shape["hidden_size"] * shape["head_dim"] * 2 * (shape["num_attention_heads"] + shape["num_key_value_heads"])
        block = attention + 3 * shape["hidden_size"] * shape["intermediate_size"]
        billions = (shape["num_hidden_layers"] * block + shape["vocab_size"] * shape["hidden_size"]) / 1e9
        assert billions == pytest.approx(float(name.removesuffix("B")), rel=0.1)


def test_study_trains_and_measures_every_config(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [path for path in CONFIGS if path.stem in ("moe_lora", "specialists_full")]
    content = study.main([*map(str, chosen), "--dry-run"])
    assert set(content["nDCG@10"]) == {path.stem for path in chosen}
    assert all(0 <= rows["dense"]["mean"] <= 1 for rows in content["nDCG@10"].values())
    assert json.loads(capsys.readouterr().out)["dry_run"] is True


def test_study_needs_data() -> None:
    with pytest.raises(SystemExit):
        study.main([str(CONFIGS[0])])
