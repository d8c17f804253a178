"""The scripts for a GPU, as far as a CPU can take them: their dry runs."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench.gpu import encode, shapes, tiny

PACK = Path(__file__).parents[2] / "bench" / "gpu" / "pack"
pytestmark = pytest.mark.filterwarnings("ignore")


def test_shapes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    content = shapes.main(["--dry-run", "--to", str(tmp_path / "shapes.json")])
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "shapes.json").read_text())
    assert content["scoreboard"] == []
    assert {f"tiny: {name} / bare, bulk" for name in ("mixture", "folded", "transformers padded")} <= set(content["ratios"])
    assert content["ratios"]["tiny: weights, one model with experts / two models"]["value"] > 0.5
    assert content["figures"]["tiny"]["attention"] == "packed"


def test_encode(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    backbone, data = tiny.backbone(tmp_path / "backbone"), tiny.dataset(tmp_path / "data")
    to = tmp_path / "encode.json"
    arguments = ["--quick", "--device", "cpu", "--backbone", str(backbone), "--texts", str(data), "--to", str(to)]
    content = encode.main(arguments)
    assert json.loads(capsys.readouterr().out) == json.loads(to.read_text()) and content["scoreboard"] == []
    assert {"sentence-transformers, fp32, 32 / mixture, bf16, encode", "cross-encoder, fp16, 256 / ours, bf16-weights, rerank"} <= set(
        content["ratios"]
    )
    assert set(content["figures"]["attention"].values()) == {"packed"}
    assert all(each["share_of_matrix_rate"] > 0 for each in content["figures"]["forward"].values())


def test_every_shape_is_what_its_name_says() -> None:
    for name, shape in shapes.SHAPES.items():
        attention = shape["hidden_size"] * shape["head_dim"] * 2 * (shape["num_attention_heads"] + shape["num_key_value_heads"])
        block = attention + 3 * shape["hidden_size"] * shape["intermediate_size"]
        billions = (shape["num_hidden_layers"] * block + shape["vocab_size"] * shape["hidden_size"]) / 1e9
        assert billions == pytest.approx(float(name.removesuffix("B")), rel=0.1)


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
