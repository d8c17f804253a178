"""Cells become arrays over the same queries, and comparisons of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.study.planted import QUERIES, plant, planted_study
from twofold.errors import DataError
from twofold.study.evidence import Evidence, Place

GAINS = {"ours": {"dense": 0.1, "rerank": 0.0}, "rival": {"dense": 0.0, "rerank": 0.0}}
COMPARE = [{"what": "ours is better", "a": "ours", "b": {"dense": "rival"}}]
DENSE = Place("d", "b", "d", "dense")


def evidence(tmp_path: Path, leave_out: tuple[str, ...] = (), **changes: object) -> Evidence:
    study = planted_study(("ours", "rival"), compare=COMPARE, **changes)
    return Evidence(study, plant(study, tmp_path / "planted", GAINS, leave_out))


def test_scores_are_seeds_by_queries_as_in_the_files(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    scores = found.scores(DENSE, "ours")
    assert scores is not None and scores.shape == (3, QUERIES) and found.complete
    cell = json.loads((tmp_path / "planted" / "planted-d-b-ours-seed1.json").read_text())
    np.testing.assert_array_equal(scores[1], list(cell["tests"]["d"]["per_query"]["dense"].values()))
    assert found.scores(DENSE, "nobody") is None and found.places == (DENSE, Place("d", "b", "d", "rerank"))


def test_comparisons_are_made_where_both_sides_are(tmp_path: Path) -> None:
    found = evidence(tmp_path).compared(planted_study(("ours", "rival"), compare=COMPARE).compare[0])
    assert list(found) == [DENSE] and found[DENSE].mean == pytest.approx(0.1, abs=0.01) and found[DENSE].p < 0.001


def test_rivals_are_compared_in_the_rows_that_decide(tmp_path: Path) -> None:
    found = evidence(tmp_path, study={"tested": "ours", "rivals": ["rival"]})
    against = found.against()
    assert [at.row for at in against] == ["dense", "rerank"] and against[DENSE]["rival"] is found.effect(DENSE, "ours", "rival")


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    found = evidence(tmp_path, leave_out=("d/b/ours/seed2",))
    assert not found.complete and (len(found.cells), found.total) == (5, 6)
    assert found.effect(DENSE, "ours", "rival").seeds == (2, 3)  # type: ignore[union-attr]


def test_two_files_of_one_cell_are_refused(tmp_path: Path) -> None:
    evidence(tmp_path)
    folder = tmp_path / "planted"
    (folder / "again.json").write_text((folder / "planted-d-b-ours-seed1.json").read_text())
    with pytest.raises(DataError, match="both d/b/ours/seed1"):
        Evidence(planted_study(("ours", "rival")), folder)


def test_other_queries_are_refused(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    path = tmp_path / "planted" / "planted-d-b-ours-seed1.json"
    path.write_text(path.read_text().replace('"q0000"', '"other"'))
    again = Evidence(found.study, found.folder)
    with pytest.raises(DataError, match="ours: its seeds were not measured on the same queries"):
        again.scores(DENSE, "ours")
    for seed in (0, 2):
        other = tmp_path / "planted" / f"planted-d-b-ours-seed{seed}.json"
        other.write_text(other.read_text().replace('"q0000"', '"other"'))
    with pytest.raises(DataError, match="not all arms were measured on the same queries"):
        Evidence(found.study, found.folder).effect(DENSE, "ours", "rival")
