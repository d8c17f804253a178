"""Probes run on the models of done cells, once, and their reports are found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.study.conftest import MakeStore
from twofold.study.grid import cells
from twofold.study.probing import reports, wanted
from twofold.study.work import Worker

ONLY = ("*/moe/*", "*/mean/*")  # what starts from it, too, so that nothing needs its model any more


def test_a_probe_runs_on_every_cell_of_its_arms(store: MakeStore, tmp_path: Path) -> None:
    """Also where the model is gone by then: it is trained again, to the same weights."""
    mine = store(sweep={"lr": []}, study={"seeds": [0]}, probes=[{"name": "knockout", "arms": ["moe"], "options": {"queries": 3}}])
    assert list(wanted(mine)) == []
    Worker(mine, tmp_path / "trials", ONLY).run()
    (one,) = wanted(mine)
    content = json.loads(one.path.read_text())
    assert content["report"]["facts"]["queries"] == 3 and content["cell"]["arm"] == "moe" and content["of"] == mine.key(one.cell)
    assert reports(mine.folder, mine.study) == {"knockout": [content]}
    assert not [path for path in (tmp_path / "trials").iterdir() if path.is_dir()]
    written = one.path.stat().st_mtime_ns
    Worker(mine, tmp_path / "trials", ONLY).run()
    assert one.path.stat().st_mtime_ns == written
    one.path.unlink()
    Worker(mine, tmp_path / "trials", ONLY).run()
    again = json.loads(one.path.read_text())
    assert again["report"] == content["report"]


def test_other_options_are_another_report(store: MakeStore) -> None:
    paths = []
    for queries in (3, 4):
        mine = store(sweep={"lr": []}, study={"seeds": [0]}, probes=[{"name": "knockout", "options": {"queries": queries}}])
        mine.put(next(cells(mine.study)), {"lr": None, "criterion": 0.0})
        paths += [one.path.name for one in wanted(mine)]
    assert len(set(paths)) == 2


@pytest.mark.parametrize("kind", ["study cell", "nothing"])
def test_only_probes_are_read(store: MakeStore, tmp_path: Path, kind: str) -> None:
    (tmp_path / "probes").mkdir()
    cell = {"data": "made", "backbone": "bert", "arm": "moe", "seed": 0}
    (tmp_path / "probes" / "a.json").write_text(json.dumps({"kind": kind, "cell": cell, "probe": "x"}))
    assert reports(tmp_path, store().study) == {}
