"""`encode`, `rank` and `classify`, end to end on a tiny trial."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from tests.cli.typed import run
from twofold.cli import app


def test_encode_prints_and_writes_unit_vectors(model: str, tmp_path: Path) -> None:
    vectors = np.array(json.loads(run("encode", model, "one text", "another", "--json").stdout)["vectors"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    run("encode", model, "one text", "another", "--to", tmp_path / "vectors.npy")
    assert np.allclose(np.load(tmp_path / "vectors.npy"), vectors, atol=1e-6)
    assert "one text" in run("encode", model, "one text").stdout


def test_encode_reads_lines_from_the_input(model: str) -> None:
    result = CliRunner().invoke(app, ["encode", model, "--json"], input="one text\nanother\n")
    assert len(json.loads(result.stdout)["vectors"]) == 2


def test_rank_orders_documents(model: str) -> None:
    found = json.loads(run("rank", model, "a query", "first text", "second text", "third text", "--top", "2", "--json").stdout)
    assert len(found) == 2 and found[0]["score"] >= found[1]["score"]
    assert found[0]["document"] in run("rank", model, "a query", "first text", "second text", "third text").stdout
