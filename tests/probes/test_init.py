"""`probe`: by name, with options, and of somebody's own module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.probes.conftest import MakeSystem
from twofold.data.sources import Dataset
from twofold.errors import ConfigError, DataError
from twofold.probes import probe, quiet

OWN = '''"""Counts experts."""

def run(system, dataset, *, queries: int = 7, seed: int = 0, factor: float = 1.0):
    return {"facts": {"n": queries, "seed": seed, "factor": factor}, "tables": {}, "units": {}, "notes": []}
'''


def test_a_module_of_ones_own_gets_what_it_names(
    make: MakeSystem, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_probes").mkdir()
    (tmp_path / "own_probes" / "__init__.py").write_text("")
    (tmp_path / "own_probes" / "count.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    system = make()
    assert probe("own_probes.count", system, dataset)["facts"] == {"n": 7, "seed": 0, "factor": 1.0}
    assert probe("own_probes.count", system, dataset, {"factor": 2}, queries=3, seed=1)["facts"] == {"n": 3, "seed": 1, "factor": 2.0}
    with pytest.raises(ConfigError, match="did you mean 'factor'"):
        probe("own_probes.count", system, dataset, {"factors": 2})
    with pytest.raises(ConfigError, match="'seed' is set by the program"):
        probe("own_probes.count", system, dataset, {"seed": 2})


def test_what_is_not_there_is_named(make: MakeSystem, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="did you mean 'angles'"):
        probe("angle", make(), dataset)
    with pytest.raises(DataError, match="no split 'nowhere'"):
        probe("routing", make(), dataset, split="nowhere")
    quiet("x", 0, 1)
