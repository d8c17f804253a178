"""An index knows its model and how it was made, and lets one process write."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_trial import tiny_unified
from twofold.errors import CheckpointError, ConfigError
from twofold.model.folder import save
from twofold.model.system import System
from twofold.search.index import FILE, LOCK, Index, Settings, load_reader, named, open_or_make, read_settings, writing
from twofold.search.passages import Cut
from twofold.search.reader import Reader


def test_it_is_opened_as_it_was_made(index: Index, reader: Reader) -> None:
    again = Index.open(index.folder)
    assert again.settings == index.settings and again.settings.cut == Cut.of(reader.room)
    assert json.loads(json.dumps(again.facts()))["store"]["kind"] == "exact"


def test_another_model_is_refused_with_the_way_out(index: Index, reader: Reader) -> None:
    other = replace(reader, fingerprint="0" * 64, identity={**reader.identity, "backbone": "another"})
    with pytest.raises(CheckpointError, match=r"made by another model \(backbone .* now 'another'.*twofold index DOCUMENTS --to NEW"):
        index.pipeline(other)
    with pytest.raises(CheckpointError, match="the same backbone, other weights"):
        index.pipeline(replace(reader, fingerprint="0" * 64))
    assert index.pipeline(reader, fusion=0.3, rerank_weight=0.25).fusion == 0.3
    assert index.pipeline(reader, rerank_weight=0.25).callables.rerank_weight == 0.25


def test_a_place_that_is_taken_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not empty"):
        Index.make(index.folder, index.settings)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        Index.make(tmp_path / "other", index.settings)
    with pytest.raises(ConfigError, match="lancedb"):
        Index.make(tmp_path / "third", replace(index.settings, store="lance"))
    assert not (tmp_path / "third").exists()


def test_no_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no index; make one with: twofold index DOCUMENTS --to"):
        Index.open(tmp_path)


@pytest.mark.parametrize(
    "change", [lambda s: s[:-40], lambda s: s.replace('"size": 1', '"size": 2'), lambda s: "[]", lambda s: "{" * 10**5, lambda s: ""]
)
def test_a_damaged_file_is_refused_by_name(index: Index, change: object) -> None:
    path = index.folder / FILE
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=r"index\.json: cut short or changed"):
        read_settings(index.folder)


def test_another_format_is_refused(index: Index) -> None:
    path = index.folder / FILE
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(CheckpointError, match="format 9, and this version of Twofold reads format 1"):
        read_settings(index.folder)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with writing(tmp_path), pytest.raises(ConfigError, match="another process is writing"), writing(tmp_path):
        pass
    code = f"import os\nfrom filelock import FileLock\nFileLock({str(tmp_path / LOCK)!r}).acquire()\nos._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    with writing(tmp_path):  # a process that died lets go
        pass


def test_open_or_make_keeps_to_what_was_made(system: System, tmp_path: Path) -> None:
    save(system.embedder, tmp_path / "model")
    made, reader = open_or_make(tmp_path / "index", str(tmp_path / "model"), store="exact", size=10)
    assert made.settings.model == named(str(tmp_path / "model")) and (made.settings.size, made.settings.overlap) == (10, 1)
    again, _ = open_or_make(tmp_path / "index")
    assert again.settings == made.settings and load_reader(again.settings).fingerprint == reader.fingerprint
    with pytest.raises(ConfigError, match="made with size 10, not 5; index into a new folder"):
        open_or_make(tmp_path / "index", size=5)
    with pytest.raises(ConfigError, match="room"):
        open_or_make(tmp_path / "new", str(tmp_path / "model"), size=500)
    save(tiny_unified(Path(system.embedder.spec.backbone)), tmp_path / "other")
    with pytest.raises(CheckpointError, match="made by another model"):
        open_or_make(tmp_path / "index", str(tmp_path / "other"))


def test_settings_of_a_model(reader: Reader) -> None:
    settings = Settings.of("builtin", reader, Cut(5, 1), "exact", {"a": 1})
    assert (settings.model, settings.fingerprint, settings.width, settings.size, settings.options) == (
        "builtin",
        reader.fingerprint,
        32,
        5,
        {"a": 1},
    )
