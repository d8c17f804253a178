"""A section shows what there is: scores, comparisons, the sweep with its edges, weights, probes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.planted import plant, planted_study
from twofold.study.blocks import Block, Figure, Table, Text
from twofold.study.evidence import Evidence
from twofold.study.sections import blocks
from twofold.study.store import Store


def named(found: list[Block], name: str) -> Table:
    return next(block for block in found if isinstance(block, Table) and block.name == name)


def test_a_real_study_has_every_part(finished: Store) -> None:
    found = list(blocks(Evidence(finished.study, finished.folder), {}))
    assert isinstance(found[0], Text) and "8 of 8 cells" in found[0].text and "4 steps" in found[0].text
    tables = {block.name for block in found if isinstance(block, Table)}
    assert tables == {"means", "scores", "arms", "rivals", "sweep", "cost"}
    assert sum(isinstance(block, Figure) for block in found) == 3 + 1 + 1 + 1  # three rows, rivals, the sweep, the gates
    sweep = named(found, "sweep")
    taken = [row for row in sweep.rows if row["taken"]]
    assert len(taken) == 3 and all(row["taken"] == "at the edge" for row in taken)  # of two rates each is one
    assert all(set(row) == set(sweep.columns) for row in sweep.rows)
    weights = next(block for block in found if isinstance(block, Figure) and block.name.startswith("gates"))
    assert sum(float(row["weight"] or 0) for row in weights.rows if str(row["task: expert"]).startswith("rerank")) == pytest.approx(
        3 * len({row["layer"] for row in weights.rows}), rel=0.01
    )


def test_nothing_is_shown_of_nothing(tmp_path: Path) -> None:
    assert list(blocks(Evidence(planted_study(("a",)), tmp_path), {})) == []


UNITS = {"angle": "degrees", "elsewhere": "unused"}


def test_a_probes_facts_are_means_over_seeds(tmp_path: Path) -> None:
    study = planted_study(("moe",))
    evidence = Evidence(study, plant(study, tmp_path / "planted", {"moe": {"dense": 0.0}}))
    cell = {"data": "d", "backbone": "b", "arm": "moe"}
    made = [
        {
            "cell": {**cell, "seed": seed},
            "report": {
                "facts": {"angle": angle, "told": True, "none": None},
                "tables": {"t": [{"x": 1}]},
                "units": UNITS,
                "notes": ["few"],
            },
        }
        for seed, angle in enumerate((10.0, 20.0))
    ]
    found = list(blocks(evidence, {"angles": made}))
    assert any(isinstance(block, Text) and block.text == "In angles, angle: degrees." for block in found)
    assert named(found, "probe-angles").rows == [{**cell, "seeds": 2, "angle": 15.0, "told": "True", "none": None}]
    assert named(found, "probe-angles-t").rows == [{"x": 1}] and isinstance(found[-1], Text) and "few" in found[-1].text
