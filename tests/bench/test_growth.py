"""Growth, at tiny sizes; nothing is asserted about time."""

from __future__ import annotations

import json
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lancedb")
from bench import _curves, _vectors, growth
from tests.search.made import vectors
from twofold.search.stores.exact import ExactStore

pytestmark = pytest.mark.filterwarnings("ignore")
RUN = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "run"))
SVG = "{http://www.w3.org/2000/svg}"


def test_growth(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    here = growth.child
    monkeypatch.setattr(growth, "apart", lambda kind, *rest: done.append(kind) or here(kind, *rest))  # in this process, which is quick
    to = tmp_path / "results" / "bench" / "growth.json"
    arguments = [*small, "--place", str(tmp_path), "--to", str(to)]
    content = growth.main(arguments)
    assert json.loads(capsys.readouterr().out) == json.loads(to.read_text()) == json.loads(json.dumps(content))
    assert next(iter(content)) == "ratios" and content["scoreboard"] == [] and set(content["exponents"]) == {"indexing", "search", "memory"}
    assert {"encode, 4", "encode, 40", "index, 12"} <= set(content["growth_of_texts"])
    stores = content["growth_of_vectors"]
    assert stores["LanceDB, 40"]["recall@10"] == stores["exact store, 400"]["recall@100"] == 1
    assert stores["LanceDB, 400"]["vectors"].startswith("approximate") and stores["LanceDB, all looked at, 400"]["recall@100"] == 1
    assert len(content["ann_settings"]) > 4 and all(0 < row["recall@100"] <= 1 for row in content["ann_settings"].values())
    first = len(done)
    assert growth.main(arguments)["growth_of_vectors"] == stores and len(done) == first  # what was measured is not measured again
    (tmp_path / "exact-80.json").unlink()
    content = growth.main(arguments)
    assert done[first:] == ["exact"]
    pages = RUN["pages"](tmp_path)
    assert pages["docs/growth.svg"] == _curves.picture(content) and "](growth.svg)" in pages["docs/performance.md"]
    drawn = ElementTree.fromstring(_curves.picture(content))
    assert len(drawn.findall(f"{SVG}polyline")) == 7 and len(drawn.findall(f"{SVG}circle")) == 2 * (3 + 2) + 3 + 1 + 3


def test_a_part_that_fails_ends_the_run_and_one_that_works_is_read(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def fake(command: list[str], **_: Any) -> SimpleNamespace:
        seen.append(command)
        return SimpleNamespace(returncode=len(seen) - 1, stdout='noise\n{"seconds": [1.0]}\n')

    monkeypatch.setattr(growth.subprocess, "run", fake)
    chosen = growth._measure.options("", small, 1)
    assert growth.apart("encode", 4, chosen, tmp_path) == {"seconds": [1.0]}
    assert seen[0][1:7] == ["-m", "bench.growth", "--child", "encode", "4", str(tmp_path)]
    with pytest.raises(SystemExit, match="encode of 4 ended with 1"):
        growth.apart("encode", 4, chosen, tmp_path)


def test_more_vectors_than_there_are_come_again_with_noise() -> None:
    real_MD = vectors(50, width=64)
    found = np.concatenate(list(_vectors.blocks(real_MD, 130, size=40)))
    assert found.shape == (130, 64) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found[:50], real_MD, atol=1e-6)
    near = (found[50:100] * real_MD).sum(1)
    assert 0.6 < np.median(near) < 0.95 and abs(found[50:80] - found[100:130]).max() > 0.01
    assert np.array_equal(found, np.concatenate(list(_vectors.blocks(real_MD, 130, size=40))))


def test_recall_is_against_looking_at_all() -> None:
    real_MD, query_QD = vectors(50, width=64), vectors(4, 9, 64)
    store = ExactStore(None, 64)
    _vectors.fill(store, real_MD, ["a", "b"], 120)
    right_QK = _vectors.right(real_MD, 120, query_QD)
    row = _vectors.asked(_vectors.from_store(store), query_QD, right_QK)
    assert row["recall@10"] == row["recall@100"] == 1
    assert _vectors.asked(lambda query_D, k: [], query_QD, right_QK)["recall@10"] == 0


def test_an_exponent_is_1_where_growth_is_in_proportion() -> None:
    assert growth.growth({10: 3.0, 100: 11.0, 1000: 300.0}) == 1 and growth.growth({10: 3.0, 1000: 3.0}) == 0
    assert growth.growth({10: 9.0, 100: 2.0, 1000: 20.0}, (100, 1000)) == 1
