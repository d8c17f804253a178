"""A trained tiny trial, its config and its data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.typed import run
from tests.tiny_trial import tiny_config, write_backbone, write_beir


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained tiny trial, its config and its data."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOFOLD_CACHE", str(folder / "cache"))
        config = tiny_config(write_backbone(folder / "backbone"), write_beir(folder / "tiny"))
        (folder / "config.toml").write_text(config.to_toml())
        result = run("train", folder / "config.toml", "--to", folder / "trials", "--json")
        (folder / "model.txt").write_text(json.loads(result.stdout)["model"])
    return folder


@pytest.fixture
def model(place: Path) -> str:
    return (place / "model.txt").read_text()
