"""A tiny model as search sees it, and documents to search in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_trial import stirred, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.model.system import System
from twofold.search.index import Index, Settings
from twofold.search.passages import Cut
from twofold.search.reader import Reader

PLAN = LayerPlan(tuple(Expert(name, 2) for name in ("embedding", "shared")), router="soft")


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    backbone = write_backbone(tmp_path_factory.mktemp("search") / "backbone")
    return System.of(stirred(tiny_unified(backbone, PLAN)).eval())


@pytest.fixture(scope="session")
def reader(system: System) -> Reader:
    return Reader.of(system)


@pytest.fixture
def index(reader: Reader, tmp_path: Path) -> Index:
    """An empty index in the plainest store."""
    return Index.make(tmp_path / "index", Settings.of("nowhere", reader, Cut.of(reader.room), "exact"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two documents and a picture."""
    place = tmp_path / "documents"
    (place / "notes").mkdir(parents=True)
    (place / "notes" / "fox.md").write_text("---\nlang: en\n---\n# A red fox\n\nThe fox runs over the dog.\n\n## Query\n\nWhat is it?\n")
    (place / "dog.txt").write_text("The lazy dog is a document. It runs.")
    (place / "picture.png").write_bytes(b"\x89PNG")
    return place
