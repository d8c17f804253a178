"""One tiny backbone, one tiny dataset and one cache for all tests of training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tiny_trial import tiny_config, write_backbone, write_beir
from tests.train.children import Children
from twofold.config import TrialConfig

MakeConfig = Callable[..., TrialConfig]


@pytest.fixture(scope="session")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def beir_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_beir(tmp_path_factory.mktemp("beir") / "tiny")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(shared_cache))


@pytest.fixture
def make_config(backbone_dir: Path, beir_dir: Path) -> MakeConfig:
    """`tiny_config` with the backbone and the data given."""

    def make(**changes: object) -> TrialConfig:
        return tiny_config(backbone_dir, beir_dir, **changes)

    return make


@pytest.fixture(scope="session")
def children(shared_cache: Path) -> Iterator[Children]:
    """Processes to kill. They are forked, which Windows cannot."""
    if not hasattr(os, "fork"):
        pytest.skip("no os.fork here")
    server = Children(shared_cache)
    yield server
    server.close()
