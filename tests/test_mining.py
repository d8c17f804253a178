from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from twofold.data.corpus import Corpus
from twofold.data.mixing import TrainingSet
from twofold.data.sources import Dataset, open_dataset
from twofold.mining import Mined, interleave, mine
from twofold.ranking import Bm25
from twofold.records import Document

pytestmark = pytest.mark.usefixtures("cache_dir")

TEXTS = {"d0": 1.0, "d1": 0.95, "d2": 0.9, "d3": 0.8, "d4": 0.5, "d5": -0.2}
"""Document → its score for every query under the model below."""


def dataset() -> Dataset:
    corpus = Corpus.from_documents(Document(name, "", f"apple {name} " + "pie " * n) for n, name in enumerate(TEXTS))
    judged = {"train": {"q1": {"d1": 1, "d4": 1, "d0": 0}, "q2": {"d5": 1}}}
    return Dataset("toy", corpus, judged, {"q1": "apple", "q2": "apple pie"}, lambda: "fingerprint")


class Model:
    """The first coordinate of a document is its score."""

    def __init__(self) -> None:
        self.calls = 0

    def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32)

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        scores = [TEXTS[text.split()[1]] for text in texts]
        return np.array([[score, np.sqrt(1 - score**2)] for score in scores], dtype=np.float32)


def ids(mined: Mined) -> dict[str, list[str]]:
    return {query: [identity for identity, _ in pairs] for query, pairs in mined.negatives.items()}


def test_bm25_mines_what_is_not_relevant() -> None:
    mined = ids(mine(dataset()))
    assert set(mined["q1"]) == {"d0", "d2", "d3", "d5"}
    assert set(mined["q2"]) == {"d0", "d1", "d2", "d3", "d4"}
    assert mined["q1"][0] == "d0"  # the shortest


@pytest.mark.parametrize(
    ("options", "q1", "q2"),
    [
        ({}, ["d0", "d2", "d3", "d5"], ["d0", "d1", "d2", "d3", "d4"]),
        ({"depth": 3}, ["d0", "d2"], ["d0", "d1", "d2"]),
        ({"rank_range": (1, 3)}, ["d2", "d3"], ["d1", "d2"]),
        ({"margin": 0.0}, ["d2", "d3", "d5"], []),
        ({"margin": 0.1}, ["d3", "d5"], []),
        ({"margin": 0.1, "margin_kind": "absolute"}, ["d3", "d5"], []),
        ({"margin": 0.06, "margin_kind": "absolute"}, ["d3", "d5"], []),
    ],
)
def test_a_model_mines_by_rank_range_and_margin(options: dict[str, object], q1: list[str], q2: list[str]) -> None:
    model = Model()
    mined = mine(dataset(), encode_queries=model.queries, encode_documents=model.documents, **options)  # type: ignore[arg-type]
    assert ids(mined) == {"q1": q1, "q2": q2}
    assert [score for _, score in mined.negatives["q1"]] == pytest.approx([TEXTS[identity] for identity in q1])


def test_the_corpus_is_encoded_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = Model(), list[tuple[int, int]]()

    def run() -> Mined:
        return mine(
            dataset(),
            encode_queries=model.queries,
            encode_documents=model.documents,
            margin=0.01,
            progress=lambda done, total: seen.append((done, total)),
        )

    whole = run()
    monkeypatch.setattr("twofold.mining._CHUNK", 4)
    assert run() == whole
    assert seen == [(6, 6), (4, 6), (6, 6)]


def test_results_are_kept_by_all_that_decides_them(cache_dir: Path) -> None:
    model = Model()

    def run(data: Dataset, name: str | None, depth: int = 5) -> Mined:
        return mine(data, encode_queries=model.queries, encode_documents=model.documents, model=name, depth=depth)

    first = run(dataset(), "m1")
    assert run(dataset(), "m1") == first
    assert model.calls == 1
    run(dataset(), "m2")
    run(dataset(), "m1", depth=4)
    run(replace(dataset(), sign=lambda: "changed"), "m1")
    changed = dataset()
    run(replace(changed, judged={"train": {"q1": {"d2": 1}}}), "m1")
    assert model.calls == 5
    run(dataset(), None)
    assert model.calls == 6
    assert len(list((cache_dir / "mined").iterdir())) == 5


def test_a_damaged_cache_is_made_anew(cache_dir: Path) -> None:
    first = mine(dataset())
    (path,) = (cache_dir / "mined").iterdir()
    for damage in ("", "{", "[]", path.read_text().replace("d0", "d9")):
        path.write_text(damage)
        assert mine(dataset()) == first
    assert mine(dataset()) == first


def test_an_index_given_is_used_and_checked() -> None:
    data = dataset()
    assert mine(data, bm25=Bm25(data.corpus)) == mine(data)
    assert mine(data, bm25=Bm25(data.corpus, k1=0.5)).sha256 != mine(data).sha256
    with pytest.raises(ValueError, match="are not those of toy"):
        mine(data, bm25=Bm25([Document("x", "", "apple")]))


def test_impossible_settings_are_refused() -> None:
    model = Model()
    with pytest.raises(ValueError, match="both encode_queries and encode_documents"):
        mine(dataset(), encode_queries=model.queries)
    with pytest.raises(ValueError, match="rank range 3 to 3"):
        mine(dataset(), rank_range=(3, 3))
    with pytest.raises(ValueError, match=r"margin -0.1"):
        mine(dataset(), margin=-0.1)


def test_two_minings_interleave() -> None:
    one = Mined.of({"q": [("a", 3.0), ("b", 2.0)]})
    two = Mined.of({"q": [("c", 0.9), ("a", 0.8), ("d", 0.7)], "r": [("e", 1.0)]})
    both = interleave(one, two)
    assert both.negatives == {"q": [("a", 3.0), ("c", 0.9), ("b", 2.0), ("d", 0.7)], "r": [("e", 1.0)]}
    assert both.sha256 not in {one.sha256, two.sha256}


@pytest.mark.data
def test_mined_negatives_of_a_real_dataset_train(data_dir: Path) -> None:
    data = open_dataset(data_dir / "scifact")
    mined = mine(data, depth=50)
    assert set(mined.negatives) == set(data.qrels("train"))
    source = TrainingSet(data, mined.negatives)
    for example in source.batch("rerank", 0, 16, 7, seed=0):
        query = example.query_id.removeprefix("scifact/")
        known = {identity for identity, _ in mined.negatives[query]}
        assert {identity.removeprefix("scifact/") for identity in example.document_ids[1:]} <= known
