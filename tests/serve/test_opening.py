"""What is opened to be served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import THREE
from tests.tiny_trial import tiny_unified, write_backbone
from twofold.errors import CheckpointError
from twofold.model import folder
from twofold.model.folder import load_system, save
from twofold.model.system import System
from twofold.search.index import Index, Settings
from twofold.search.reader import Reader
from twofold.serve.opening import Choice, opener, systems_of


def made(folder: Path, model: Any, system: System) -> None:
    reader = Reader.of(system)
    from twofold.search.passages import Cut

    Index.make(folder, Settings.of("model", reader, Cut.of(reader.room, None, None), "exact")).close()


def test_a_model_its_variants_and_its_index(tmp_path: Path) -> None:
    model = tiny_unified(write_backbone(tmp_path / "backbone"), THREE)
    save(model, tmp_path / "model")
    made(tmp_path / "index", model, System.of(model))
    loaded = opener(Choice(str(tmp_path / "model"), tmp_path / "index", threads=1))()
    assert list(loaded.systems) == [""] and loaded.library is not None and loaded.library.store.count() == 0
    assert opener(Choice(str(tmp_path / "model")))().library is None


def test_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    backbone = write_backbone(tmp_path / "backbone")
    save(tiny_unified(backbone, THREE), tmp_path / "model")
    other = tiny_unified(backbone)
    made(tmp_path / "index", other, System.of(other))
    with pytest.raises(CheckpointError, match="made by another model"):
        opener(Choice(str(tmp_path / "model"), tmp_path / "index"))()


def test_domains_are_systems_of_their_own(tmp_path: Path) -> None:
    tasks: dict[str, Any] = {"retrieve:legal": {}, "rerank:legal": {}, "retrieve:half": {}}
    model = tiny_unified(write_backbone(tmp_path / "backbone"), **tasks)
    found = systems_of(System.of(model))
    assert list(found) == ["", "legal"] and found["legal"].variant == "legal"


@pytest.mark.parametrize(("made_in", "asked", "wanted"), [("", None, "bf16"), ("", "fp32", "fp32"), ("bf16-weights", None, "bf16-weights")])
def test_the_faster_precision_is_taken_unless_the_index_has_half_weights(
    made_in: str, asked: str | None, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "fastest", lambda _: "bf16")
    save(tiny_unified(write_backbone(tmp_path / "backbone"), THREE), tmp_path / "model")
    if made_in:
        system = load_system(tmp_path / "model", precision=made_in)
        made(tmp_path / "index", system.embedder, system)
    loaded = opener(Choice(str(tmp_path / "model"), tmp_path / "index" if made_in else None, precision=asked))()
    assert loaded.systems[""].embedder.spec.precision == wanted
