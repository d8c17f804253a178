"""What every file of probes/ keeps, found by listing the folder."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_trial import stirred, tiny_unified, write_backbone, write_beir
from twofold import plugins
from twofold.core.inject import Expert, LayerPlan
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import TwofoldError
from twofold.model.system import System
from twofold.probes import Report, probe

PROBES = plugins.names("probes")
PLAN = LayerPlan(tuple(Expert(name, 2) for name in ("embedding", "reranking", "shared")), router="soft")
GIVEN: dict[str, Any] = {"split": "train", "queries": 24}
QUICK: dict[str, dict[str, Any]] = {
    "conflict": {"batch": 3},
    "affinity": {"batch": 3},
    "routing": {"permutations": 3},
    "content": {"controls": 1},
}
"""What makes a probe small enough for tiny data."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    return System.of(stirred(tiny_unified(write_backbone(tmp_path_factory.mktemp("probes") / "backbone"), PLAN)).eval())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_beir(tmp_path_factory.mktemp("probes") / "tiny"))


@pytest.fixture(scope="module")
def reports(system: System, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Report, list[str], bool]]:
    """Probe → its report, what it said of its progress, and whether the system was the same afterwards."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWOFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in PROBES:
            said: list[str] = []
            before, model = state(system), system.embedder
            report = probe(
                name, system, dataset, QUICK.get(name, {}), **GIVEN, progress=lambda what, done, total, said=said: said.append(what)
            )
            after = state(system)
            same = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
            found[name] = (report, said, same and not model.training and model.truncated == {"texts": 0, "pairs": 0})
    return found


def state(system: System) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in system.embedder.state_dict().items()}


def test_there_are_probes_and_each_says_what_it_is() -> None:
    assert {"conflict", "routing", "content", "similarity", "angles", "attention", "knockout", "affinity", "transfer"} <= set(PROBES)
    assert all(line for _, line in plugins.describe("probes"))


@pytest.mark.parametrize("name", PROBES)
def test_everything_but_system_and_data_has_a_default(name: str) -> None:
    parameters = inspect.signature(plugins.load("probes", name).run).parameters
    assert list(parameters)[:2] == ["system", "dataset"]
    for parameter in list(parameters.values())[2:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", PROBES)
def test_its_report_is_plain_and_every_column_is_explained(name: str, reports: dict[str, tuple[Report, list[str], bool]]) -> None:
    report = reports[name][0]
    assert set(report) == {"facts", "tables", "units", "notes"}
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["facts"] and any(report["tables"].values())
    for rows in report["tables"].values():
        for row in rows:
            assert all(value is None or isinstance(value, (str, int, float)) for value in row.values())
    columns = {key for rows in report["tables"].values() for row in rows for key in row}
    assert columns & report["units"].keys()


@pytest.mark.parametrize("name", PROBES)
def test_it_tells_how_far_it_is_and_leaves_the_system_alone(name: str, reports: dict[str, tuple[Report, list[str], bool]]) -> None:
    _, said, same = reports[name]
    assert said and same


@pytest.mark.parametrize("name", PROBES)
def test_it_gives_the_same_again(name: str, system: System, dataset: Dataset, reports: dict[str, tuple[Report, list[str], bool]]) -> None:
    again = probe(name, system, dataset, QUICK.get(name, {}), **GIVEN)
    assert close(again["tables"], reports[name][0]["tables"])


def close(a: Any, b: Any) -> bool:
    """Equal, but for the last digits of numbers."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.isclose(a, b, atol=1e-5)) if isinstance(a, float) and isinstance(b, float) else a == b


@pytest.mark.parametrize("name", PROBES)
def test_two_specialists_or_no_experts_are_looked_at_or_refused_in_words(name: str, dataset: Dataset, tmp_path: Path) -> None:
    bare = tiny_unified(write_backbone(tmp_path / "backbone")).eval()
    for system in (System.of(bare), System(bare, tiny_unified(tmp_path / "backbone").eval(), 0.5)):
        try:
            report = probe(name, system, dataset, QUICK.get(name, {}), **GIVEN)
        except TwofoldError as error:
            assert len(str(error)) > 20
        else:
            assert report["facts"]
