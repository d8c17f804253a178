"""One evaluation from end to end, on toys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluate.toy import ToySystem, toy_dataset
from twofold.errors import DataError
from twofold.evaluate.evaluation import Evaluation, Settings, evaluate
from twofold.tasks import lists_of

ROWS = ("bm25", "dense", "reranked", "pipeline", "bm25_reranked", "bm25_pipeline", "oracle", "bm25_oracle")
SETTINGS = Settings(depth=3, bm25_rerank_depth=2, retrieval_depth=5, resamples=99)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluate(ToySystem(), toy_dataset(), name="toy", method="none", settings=SETTINGS, truncated=lambda: {"documents": 2})


def test_rows_deltas_and_facts(result: Evaluation) -> None:
    assert tuple(result.rows) == tuple(result.per_query) == ROWS
    assert set(result.rows["dense"]) == {"nDCG@10", "R@100", "AP", "RR"}
    assert set(result.deltas) == {"reranked-dense", "pipeline-dense", "bm25_reranked-bm25"}
    assert set(result.deltas["pipeline-dense"]) == {"measure", "mean", "low", "high", "p", "wins", "losses", "ties"}
    assert (result.data["queries"], result.data["queries_without_positive"], result.data["documents"]) == (6, 2, 10)
    assert result.truncated == {"documents": 2}
    assert all(len(values) == 6 for values in result.per_query.values())
    assert result.rows["reranked"]["nDCG@10"] <= result.rows["oracle"]["nDCG@10"]
    assert result.rows["reranked"]["R@100"] == result.rows["dense"]["R@100"] == result.rows["oracle"]["R@100"]


def test_json_there_and_back(result: Evaluation, tmp_path: Path) -> None:
    text = result.to_json()
    assert json.loads(text)["kind"] == "evaluation"
    assert Evaluation.from_json(text) == result
    assert text.count("\n") < 60
    result.save(tmp_path / "new" / "toy.json")
    assert (tmp_path / "new" / "toy.json").read_text() == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["toy.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind":\n', "f.json:2: not JSON"),
        ("[]", "f.json: not the result of an evaluation"),
        ('{"kind": "bench"}', "f.json: not the result"),
        ('{"kind": "evaluation", "nme": 1}', "unknown keys ..nme"),
    ],
)
def test_other_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Evaluation.from_json(text, "f.json")


def test_repeatable(result: Evaluation) -> None:
    again = evaluate(ToySystem(), toy_dataset(), name="toy", method="none", settings=SETTINGS)
    for part in ("rows", "deltas", "per_query", "data", "settings"):
        assert getattr(again, part) == getattr(result, part)


def test_weight_zero_is_dense_and_one_is_reranked() -> None:
    for weight, row in ((0.0, "dense"), (1.0, "reranked")):
        measured = evaluate(ToySystem(weight, wrong=("apple", "ocean")), toy_dataset(), name="t", method="m", settings=SETTINGS)
        assert measured.per_query["pipeline"] == measured.per_query[row]
    assert measured.rows["reranked"]["nDCG@10"] < measured.rows["dense"]["nDCG@10"]
    assert measured.deltas["reranked-dense"]["losses"] == 2


def test_a_pair_of_both_first_stages_is_scored_once() -> None:
    system = ToySystem()
    evaluate(system, toy_dataset(), name="t", method="m", settings=SETTINGS)
    assert len(system.scored) == len(set(system.scored))
    assert len(system.scored) < 6 * (3 + 2)


def test_whole_lists_are_scored_once_for_each_first_stage() -> None:
    """Where a score depends on the other candidates, those of BM25 are not mixed with the system's own."""

    class Lists(ToySystem):
        reads_lists = True

    system = Lists()
    evaluate(system, toy_dataset(), name="t", method="m", settings=SETTINGS)
    lists = lists_of(system.scored[: 6 * SETTINGS.depth])
    assert len(lists) == 6 and all(len(texts) == SETTINGS.depth for _, *texts in lists)
    assert 0 < len(system.scored) - 6 * SETTINGS.depth <= 6 * SETTINGS.bm25_rerank_depth


def test_run_files(tmp_path: Path) -> None:
    evaluate(ToySystem(), toy_dataset(), name="toy", method="m", settings=SETTINGS, runs_folder=tmp_path)
    assert {path.stem for path in tmp_path.glob("*.trec")} == set(ROWS)
    assert (tmp_path / "dense.trec").read_text().startswith("q0 Q0 d0 1 ")


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="depths 200"):
        Settings(depth=200)
    with pytest.raises(ValueError, match=r"rerank weight is 1\.5"):
        evaluate(ToySystem(1.5), toy_dataset(), name="t", method="m")
