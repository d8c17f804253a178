from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import nDCG

from twofold.data.sources import open_dataset
from twofold.ranking import Bm25, exact_top_k, fuse_rrf, interpolate, mix, ranked, stems
from twofold.records import Document

DOCUMENTS = [
    Document("b", "", "running cats"),
    Document("a", "", "running cats"),
    Document("c", "Cats", "a cat ran: cats"),
    Document("d", "", "something else entirely, about dogs"),
]


def test_bm25_ranks_ties_by_id_and_leaves_out_what_shares_no_word() -> None:
    index = Bm25(DOCUMENTS)
    run = index.run({"q": "The cats run!", "none": "zebra", "stop": "the of and", "empty": "?"}, depth=10)
    assert list(run["q"]) in (["a", "b", "c"], ["c", "a", "b"])
    assert run["q"]["a"] == run["q"]["b"]
    assert run["none"] == run["stop"] == run["empty"] == {}
    assert list(index.run({"q": "running"}, depth=1)["q"]) == ["a"]
    assert index.score("The cats run!", ["b", "d"]) == [run["q"]["b"], 0.0]
    with pytest.raises(KeyError):
        index.score("cats", ["x"])


def test_bm25_needs_a_word() -> None:
    with pytest.raises(ValueError, match="none of them holds a word"):
        Bm25([Document("a", "", "?")])


@pytest.mark.data
@pytest.mark.parametrize(("name", "expected"), [("scifact", 0.679), ("nfcorpus", 0.329)])
def test_bm25_reaches_the_published_level(data_dir: Path, name: str, expected: float) -> None:
    dataset = open_dataset(data_dir / name)
    run = Bm25(dataset.corpus).run(dataset.queries("test"), depth=100)
    qrels = {query: dict(grades) for query, grades in dataset.qrels("test").items()}
    assert ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10] == pytest.approx(expected, abs=0.0006)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 30), cuts=st.lists(st.integers(0, 20), max_size=3), levels=st.integers(1, 5))
def test_exact_top_k_is_a_full_sort_whatever_the_chunks(seed: int, k: int, cuts: list[int], levels: int) -> None:
    rng = np.random.default_rng(seed)
    query_ND = rng.integers(0, levels, (3, 4)).astype(np.float32)
    document_MD = rng.integers(0, levels, (20, 4)).astype(np.float32)
    chunks = np.split(document_MD, sorted(cuts))
    index_Nk, score_Nk = exact_top_k(query_ND, iter(chunks), k)
    score_NM = query_ND @ document_MD.T
    expected = np.argsort(-score_NM, axis=1, kind="stable")[:, :k]
    assert index_Nk.tolist() == expected.tolist()
    assert score_Nk.tolist() == np.take_along_axis(score_NM, expected, 1).tolist()


def test_exact_top_k_of_nothing() -> None:
    index_Nk, score_Nk = exact_top_k(np.ones((2, 3), dtype=np.float32), [], 5)
    assert index_Nk.shape == score_Nk.shape == (2, 0)
    assert exact_top_k(np.ones((0, 3), dtype=np.float32), [np.ones((4, 3), dtype=np.float32)], 2)[0].shape == (0, 2)


def test_exact_top_k_refuses_nan() -> None:
    with pytest.raises(ValueError, match="documents 1 to 2 are not finite"):
        exact_top_k(np.ones((1, 1), dtype=np.float32), [np.ones((1, 1), dtype=np.float32), np.full((1, 1), np.nan, dtype=np.float32)], 1)


def test_reciprocal_rank_fusion() -> None:
    fused = fuse_rrf([{"q": {"a": 3.0, "b": 2.0}}, {"q": {"c": 9.0, "b": 1.0}, "r": {"a": 1.0}}])
    assert fused["q"] == pytest.approx({"b": 2 / 62, "a": 1 / 61, "c": 1 / 61})
    assert list(fused["q"]) == ["b", "a", "c"]
    assert fused["r"] == {"a": 1 / 61}
    assert fuse_rrf([]) == {}


FIRST = {"q": {"a": 10.0, "b": 8.0, "c": 6.0, "d": 5.0, "e": 5.0}}
SECOND = {"q": {"a": -3.0, "b": 0.0, "c": 1.0}}


def test_interpolation_mixes_the_candidates_and_keeps_the_rest_below() -> None:
    mixed = interpolate(FIRST, SECOND, 0.5)
    assert mixed["q"] == pytest.approx({"a": 0.5, "b": 0.5 * 0.5 + 0.5 * 0.75, "c": 0.5, "d": -1.0, "e": -2.0})
    assert ranked(mixed["q"]) == ["b", "a", "c", "d", "e"]


def test_interpolation_at_its_ends_is_one_of_the_two() -> None:
    assert ranked(interpolate(FIRST, SECOND, 0.0)["q"]) == ranked(FIRST["q"])
    assert ranked(interpolate(FIRST, SECOND, 1.0)["q"]) == ["c", "b", "a", "d", "e"]


def test_interpolation_of_odd_runs() -> None:
    assert interpolate({"q": {"a": 1.0}}, {"r": {"b": 2.0}}, 0.3) == {"q": {"a": 1.0}, "r": {"b": 2.0}}
    assert interpolate({"q": {"a": 1.0}}, {"q": {}}, 0.3) == {"q": {"a": 1.0}}
    assert interpolate({"q": {"a": 2.0, "b": 2.0}}, {"q": {"b": 7.0, "a": 7.0}}, 0.3) == {"q": {"a": 0.0, "b": 0.0}}
    assert interpolate({"q": {"a": 2.0, "b": 1.0}}, {"q": {"x": 1.0, "a": 0.0}}, 0.5) == {"q": {"x": 0.5, "a": 0.0, "b": -1.0}}
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            interpolate(FIRST, SECOND, weight)


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.floats(-10, 10, width=16), min_size=1),
    st.integers(0, 12),
)
def test_weight_zero_never_changes_an_order(scores: dict[str, float], depth: int) -> None:
    candidates = ranked(scores)[:depth]
    second = {"q": {identity: float(-n % 3) for n, identity in enumerate(candidates)}}
    assert ranked(interpolate({"q": scores}, second, 0.0)["q"]) == ranked(scores)


def test_mixing_two_runs_of_equal_standing() -> None:
    first, second = {"q": {"a": 4.0, "b": 2.0, "c": 0.0}}, {"q": {"b": 0.9, "d": 0.5, "a": 0.1}}
    mixed = mix(first, second, 0.25)["q"]
    assert mixed == pytest.approx({"a": 0.75, "b": 0.75 * 0.5 + 0.25, "d": 0.25 * 0.5, "c": 0.0})
    assert list(mixed) == ["a", "b", "d", "c"]
    assert list(mix(first, second, 0)["q"])[:3] == ["a", "b", "c"] and list(mix(first, second, 1)["q"])[:2] == ["b", "d"]
    assert mix({"q": {"a": 1.0}}, {}, 0.5) == {"q": {"a": 0.0}}
    with pytest.raises(ValueError, match="weight 2, expected 0 to 1"):
        mix(first, second, 2)


def test_stems_are_the_words_that_bm25_counts() -> None:
    assert stems(["The foxes and the running, running!", "a"]) == [["fox", "run", "run"], []]


def test_bm25_does_not_start_jax(tmp_path: Path) -> None:
    """JAX takes three quarters of a GPU's memory when it starts, which bm25s would have it do."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise SystemExit('jax was imported')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import twofold.ranking; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
