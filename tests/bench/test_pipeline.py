"""The whole way on one CPU, at tiny sizes; nothing is asserted about time."""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")
from bench import _picture, _systems, pipeline
from tests.tiny_trial import stirred, tiny_unified, write_backbone, write_beir
from twofold.core.inject import Expert, LayerPlan
from twofold.model.folder import save

ROOT = Path(__file__).parents[2]
LISTS = {"form": "listwise", "documents_as": "retrieve", "k": 2, "document_tokens": 4}
pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options: a tiny model of ours, one that reads lists, and a corpus with answers."""
    folder = tmp_path_factory.mktemp("pipeline")
    backbone, data = write_backbone(folder / "backbone"), str(write_beir(folder / "tiny"))
    plan = LayerPlan((Expert("embedding", 2), Expert("shared", 2)), router="soft")
    save(stirred(tiny_unified(backbone, plan)).eval(), folder / "ours")
    save(tiny_unified(backbone, rerank=LISTS).eval(), folder / "lists")
    given = {"model": folder / "ours", "e2rank": folder / "lists", "backbone": backbone, "texts": data, "answers": data}
    return ["--quick", "--depth", "5", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


@pytest.fixture(scope="module")
def content(made: list[str]) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "apart", pipeline.child)  # in this process, which is quick
        return pipeline.main(made)


def test_every_side_goes_the_whole_way(content: dict[str, Any]) -> None:
    assert next(iter(content)) == "ratios" and content["scoreboard"] == []
    assert all(each["low"] <= each["value"] <= each["high"] for each in content["ratios"].values())
    assert {"time to index: two models / ours", "time of a query: e2rank / ours", "weights: ours / two models"} <= set(content["ratios"])
    assert content["ratios"]["disk: ours / two models"]["value"] < 1
    sides = {"ours", "two models", "e2rank", "e2rank, trained"}
    assert sides <= set(content["figures"]) == set(content["megabytes"])
    for side in sides:
        assert {f"{side}: {stage}" for stage in ("encode", "retrieve", "rerank", "all")} <= set(content["milliseconds"])
    assert "ours: answer" in content["milliseconds"] and "two models: answer" not in content["milliseconds"]


def test_what_nobody_trained_gets_no_figure(content: dict[str, Any]) -> None:
    assert content["figures"]["two models"]["nDCG@10, reranked"] is None
    assert 0 <= content["figures"]["ours"]["nDCG@10, reranked"] <= 1
    assert "F1, passage given" not in content["figures"]["ours"] and content["used"]["answer expert trained"] is False


def test_a_model_that_answers_gets_f1(made: list[str], tmp_path: Path) -> None:
    chosen = pipeline.options(made)
    model = tiny_unified(Path(chosen.backbone), LayerPlan((Expert("shared", 2),)), answer={})
    save(stirred(model).eval(), tmp_path / "answers")
    chosen.model = str(tmp_path / "answers")
    assert _systems.answers(chosen)
    found = pipeline.answered(pipeline.Run(_systems.ours(chosen, tmp_path)), chosen)
    assert set(found) == {"F1, passage given", "F1, all the way"} and all(0 <= value <= 1 for value in found.values())


def test_vectors_of_the_index_give_the_scores_of_the_model(made: list[str]) -> None:
    side = _systems.e2rank_trained(pipeline.options(made), Path())
    (model,), texts = side.models, ["what is a fox", "the river", "a bridge"]
    side.vectors.update(zip(texts, model.encode_documents(texts), strict=True))
    pairs = [("a query", text) for text in texts]
    np.testing.assert_allclose(side.callables.score(pairs), model.score(pairs), atol=1e-5)


def test_the_child_says_what_it_weighs(made: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def fake(command: list[str], **_: Any) -> argparse.Namespace:
        seen.append(command)
        return argparse.Namespace(returncode=0, stdout='noise\n{"peak": 1.0}\n', stderr="")

    monkeypatch.setattr(pipeline.subprocess, "run", fake)
    chosen = pipeline.options(made)
    assert pipeline.apart("e2rank", chosen, tmp_path) == {"peak": 1.0}
    assert seen[0][1:6] == ["-m", "bench.pipeline", "--child", "e2rank", str(tmp_path)]
    again = pipeline.options(seen[0][6:])
    assert (again.model, again.e2rank, again.texts, again.depth, again.quick) == (chosen.model, chosen.e2rank, chosen.texts, 5, True)


def test_parts_and_turns() -> None:
    assert [list(range(10))[part] for part in pipeline.parts(10, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert pipeline.parts(1, 3) == [slice(0, 1)]
    assert pipeline.turns(["a", "b", "c"], 4) == ["b", "c", "a"]


def test_picture_and_table_stand_where_run_puts_them(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results" / "bench").mkdir(parents=True)
    (tmp_path / "results" / "bench" / "pipeline.json").write_text(json.dumps(content))
    (tmp_path / "docs").mkdir()
    run = runpy.run_path(str(ROOT / "bench" / "run"))
    (tmp_path / "docs" / "deploy.md").write_text(f"before\n{run['BEGIN']}\nold\n{run['END']}\nafter\n")

    def call(option: str) -> int:
        command = [sys.executable, str(ROOT / "bench" / "run"), "--root", str(tmp_path), option]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert call("--check") == 1
    assert call("--render") == 0
    assert call("--check") == 0
    page = (tmp_path / "docs" / "deploy.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    assert "| weights, MB |" in page and "no F1" in page
    drawn = (tmp_path / "docs" / "pipeline.svg").read_text()
    assert drawn == _picture.picture(content) and drawn.count("<rect") > 10
