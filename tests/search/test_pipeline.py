"""Retrieve, rerank, explain: over the plainest store and made-up callables."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.search.made import WIDTH, vectors
from twofold.search.pipeline import Callables, Pipeline, Routing
from twofold.search.stores import Passage
from twofold.search.stores.exact import ExactStore

TEXTS = ["red fox", "red dog", "blue fox fox", "green bird", "lazy dog dog"]
AXES = np.eye(WIDTH, dtype=np.float32)
asked: list[int] = []


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """Closest to passage 3, then 4."""
    vector_D = 0.9 * AXES[3] + 0.4 * AXES[4] + 0.1 * AXES[0]
    return np.stack([vector_D / np.linalg.norm(vector_D) for _ in texts])


def score(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """The longest text is best."""
    asked.append(len(pairs))
    return np.array([len(text) for _, text in pairs], dtype=np.float32)


def routing(query: str, bodies: Sequence[str]) -> tuple[Routing, Sequence[Routing]]:
    return {"layer": {"a": float(len(query))}}, [{"layer": {"a": float(len(body))}} for body in bodies]


@pytest.fixture
def store() -> ExactStore:
    made = ExactStore(None, WIDTH)
    rows = [Passage(f"d{i}#0", f"d{i}", "", text, f"{i}.txt", {"even": i % 2 == 0}) for i, text in enumerate(TEXTS)]
    made.upsert(rows, AXES[: len(TEXTS)])
    return made


def pipeline(store: ExactStore, weight: float = 1.0, fusion: float | None = None) -> Pipeline:
    return Pipeline(store, Callables(encode, encode, score, weight, routing), fusion=fusion)


def test_each_first_stage_finds_its_own(store: ExactStore) -> None:
    plain = pipeline(store, weight=0)
    assert [hit.id for hit in plain.search("fox", 2, mode="dense").hits] == ["d3#0", "d4#0"]
    lexical = plain.search("fox", 5, mode="lexical")
    assert [hit.id for hit in lexical.hits] == ["d2#0", "d0#0"]
    assert lexical.hits[0].dense_rank is None and lexical.hits[0].lexical_rank == 1 and lexical.hits[0].rerank_score is None
    hybrid = plain.search("fox", 5)
    assert {hit.id for hit in hybrid.hits} == {f"d{i}#0" for i in range(5)}
    by_id = {hit.id: hit for hit in hybrid.hits}
    assert by_id["d0#0"].first_score == pytest.approx(1 / 62 + 1 / 63) and by_id["d3#0"].first_score == pytest.approx(1 / 61)


def test_a_weight_in_the_place_of_ranks(store: ExactStore) -> None:
    only_words = pipeline(store, weight=0, fusion=0.0).search("fox", 2)
    only_vectors = pipeline(store, weight=0, fusion=1.0).search("fox", 2)
    assert [hit.id for hit in only_words.hits] == ["d2#0", "d0#0"] and [hit.id for hit in only_vectors.hits] == ["d3#0", "d4#0"]
    with pytest.raises(ValueError, match="fusion 1.5: use 0 to 1"):
        pipeline(store, fusion=1.5)


def test_reranking_moves_and_keeps_both_scores(store: ExactStore) -> None:
    found = pipeline(store).search("fox", 3, depth=3, mode="dense")
    assert [hit.id for hit in found.hits] == ["d4#0", "d3#0", "d0#0"]
    best = found.hits[0]
    assert (best.rank, best.first_rank, best.dense_rank, best.rerank_score, best.score) == (1, 2, 2, 12.0, 1.0)
    assert [hit.id for hit in found.first] == ["d3#0", "d4#0", "d0#0"] and [hit.rank for hit in found.first] == [2, 1, 3]
    assert found.candidates == 3 and set(found.seconds) == {"encode", "retrieve", "rerank"}


def test_the_weight_mixes_with_the_first_stage(store: ExactStore) -> None:
    assert [hit.id for hit in pipeline(store, 0.01).search("fox", 2, depth=3, mode="dense").hits] == ["d3#0", "d4#0"]
    assert pipeline(store, 0.5).search("fox", 2, depth=3, mode="dense").hits[0].score < 1


def test_below_the_depth_the_first_stage_goes_on(store: ExactStore) -> None:
    asked.clear()
    found = pipeline(store).search("fox", 4, depth=2, mode="dense")
    assert asked == [2] and [hit.rerank_score is None for hit in found.hits] == [False, False, True, True]
    assert [hit.first_rank for hit in found.hits] == [2, 1, 3, 4] and found.hits[-1].score < 0


def test_without_reranking_no_pair_is_read(store: ExactStore) -> None:
    asked.clear()
    found = pipeline(store).search("fox", 2, rerank=False)
    assert not asked and [hit.rank for hit in found.hits] == [hit.first_rank for hit in found.hits] == [1, 2]


def test_a_condition_and_no_answer(store: ExactStore) -> None:
    assert {hit.id for hit in pipeline(store).search("fox", 9, where={"even": True}).hits} == {"d0#0", "d2#0", "d4#0"}
    nothing = pipeline(store).search("fox", 3, where={"even": "perhaps"}, explain=True)
    assert nothing.hits == [] and nothing.candidates == 0


def test_explaining_gives_the_routing_of_query_and_pairs(store: ExactStore) -> None:
    found = pipeline(store).search("fox", 2, explain=True)
    assert found.routing == {"layer": {"a": 3.0}}
    assert [hit.routing for hit in found.hits] == [{"layer": {"a": float(len(hit.text))}} for hit in found.hits]
    assert pipeline(store, 0).search("fox", 2, explain=True).hits[0].routing is None
    assert json.loads(json.dumps(found.as_dict()))["hits"][0]["source"] == found.hits[0].source


@pytest.mark.parametrize(
    ("query", "options", "said"), [(" ", {}, "empty"), ("a", {"k": 0}, "use 1"), ("a", {"mode": "sparse"}, "hybrid, dense")]
)
def test_what_makes_no_sense_is_refused(store: ExactStore, query: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pipeline(store).search(query, **options)  # type: ignore[arg-type]


def test_the_body_is_what_is_read(store: ExactStore) -> None:
    store.upsert([Passage("t#0", "t", "Title", "text")], vectors(1))
    assert pipeline(store, 0).search("title", 1, mode="lexical").hits[0].body == "Title text"
