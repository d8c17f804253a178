"""The scripts for a GPU, as far as a CPU can take them: their dry runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench.gpu import shapes, study, tiny

PACK = Path(__file__).parents[2] / "bench" / "gpu" / "pack"
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
    assert set(content["nDCG@10"]) == {"data"}
    assert set(content["nDCG@10"]["data"]) == {path.stem for path in chosen}
    assert all(0 <= rows["dense"]["mean"] <= 1 for rows in content["nDCG@10"]["data"].values())
    assert content["cells_left"] == 0
    assert json.loads(capsys.readouterr().out)["dry_run"] is True


def test_study_needs_data() -> None:
    with pytest.raises(SystemExit):
        study.main([str(CONFIGS[0])])


def test_study_goes_on_where_it_stopped_and_begins_nothing_without_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[str] = []

    def fake(path: Path, data: str, seed: int, chosen: object) -> dict[str, object]:
        file = study.result_file(path, data, seed, chosen)  # type: ignore[arg-type]
        if not file.is_file():
            made.append(f"{file.parent.name}/{file.stem}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
        return {"rows": {row: {"nDCG@10": 0.5} for row in study.ROWS}}

    monkeypatch.setattr(study, "cell", fake)
    command = [*map(str, CONFIGS[:2]), "--data", "a", "b", "--seeds", "0", "1", "--to", str(tmp_path)]
    assert study.main([*command, "--minutes", "-1"])["cells_left"] == 8
    assert made == []
    assert study.main([*command, "--minutes", "5"])["cells_left"] == 0
    assert len(made) == len(set(made)) == 8
    assert made[0].startswith("a/") and made[2].startswith("b/"), "all of one seed first"
    study.main(command)
    assert len(made) == 8


def test_what_is_packed_fits_and_comes_out_again(tmp_path: Path) -> None:
    source = tiny.dataset(tmp_path / "data")
    command = [sys.executable, str(PACK), str(source), "--to", str(tmp_path / "carry")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "MB" in done.stdout
    with tarfile.open(tmp_path / "carry" / "data.tar.xz") as packed:
        packed.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / "data" / "corpus.jsonl").read_bytes() == (source / "corpus.jsonl").read_bytes()
    refused = subprocess.run([*command, "--limit", "0.000001"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "more than" in refused.stderr
