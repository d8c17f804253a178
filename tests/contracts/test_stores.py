"""What every store promises; a new file in `search/stores/` is tested without further ado.

A store that needs a server is tested in the mode that needs none, by `LOCAL`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.search.machine import operate
from tests.search.made import WIDTH, passages, vectors
from twofold import plugins
from twofold.search.stores import Known, Match, Passage, Store

FAMILY = "search/stores"
LOCAL: dict[str, dict[str, Any]] = {"qdrant": {"local": True}}
NEEDS = {"lancedb": "lancedb", "qdrant": "qdrant_client"}
Open = Callable[[], Store]


def opened(name: str, folder: Path, width: int = WIDTH) -> Store:
    store: Store = plugins.build_plugin(FAMILY, name, LOCAL.get(name, {}), folder=folder, width=width)
    return store


@pytest.fixture(params=plugins.names(FAMILY))
def name(request: pytest.FixtureRequest) -> str:
    if request.param in NEEDS:
        pytest.importorskip(NEEDS[request.param])
    return str(request.param)


@pytest.fixture
def store(name: str, tmp_path: Path) -> Iterator[Store]:
    made = opened(name, tmp_path / "index")
    yield made
    made.close()


def ids(matches: Sequence[Match]) -> list[str]:
    return [match.passage.id for match in matches]


def test_an_empty_store_finds_nothing(store: Store) -> None:
    vector_D: NDArray[np.float32] = vectors(1)[0]
    assert store.count() == 0 and store.documents() == {} and store.get(["a#0"]) == []
    assert store.search(vector_D, 3) == [] and store.lexical("red fox", 3) == []
    store.delete(["nobody"])
    store.optimize()


def test_passages_come_back_as_they_were_put_in(store: Store) -> None:
    odd = Passage(
        "it's#0", "it's", "Ti tle ", ' text\nwith "quotes", 100 % and é, 好, 🦊 ', "a/b.md:3", {"n": 3, "x": 1.5, "ok": True}, "/o", "d1"
    )
    rest = passages("b", 3, lang=["en", "de"])
    store.upsert([odd, *rest], vectors(4), new=True)
    assert store.get(["it's#0", "nobody#0", "b#2", "b#0"]) == [odd, rest[2], rest[0]]
    assert store.documents() == {"it's": Known("d1", "/o"), "b": Known(rest[0].digest, rest[0].origin)}
    assert store.count() == 4


def test_search_is_by_inner_product(store: Store) -> None:
    vector_ND = vectors(40)
    every = passages("a", 40)
    store.upsert(every, vector_ND, new=True)
    query_D = vectors(1, seed=9)[0]
    best = np.argsort(-(vector_ND @ query_D))[:5]
    found = store.search(query_D, 5)
    assert ids(found) == [every[i].id for i in best]
    np.testing.assert_allclose([match.score for match in found], (vector_ND @ query_D)[best], atol=1e-5)
    assert len(store.search(query_D, 100)) == 40


def test_words_are_found_by_their_stems_in_title_and_text(store: Store) -> None:
    texts = ["The quick foxes were running", "A lazy dog sleeps", "Nothing of the kind"]
    rows = [Passage(f"d{i}#0", f"d{i}", "Zebra" if i == 2 else "", text) for i, text in enumerate(texts)]
    store.upsert(rows, vectors(3), new=True)
    assert ids(store.lexical("fox run", 5)) == ["d0#0"]
    assert ids(store.lexical("zebras", 5)) == ["d2#0"]
    assert store.lexical("elephant", 5) == [] and store.lexical("!?", 5) == [] and store.lexical('( + AND "', 5) == []
    assert all(match.score > 0 for match in store.lexical("lazy fox", 5))


def test_a_rare_word_counts_more_than_a_frequent_one(store: Store) -> None:
    rows = [Passage(f"d{i}#0", f"d{i}", "", f"common word here {'rareness' if i == 7 else 'filling'}") for i in range(10)]
    store.upsert(rows, vectors(10), new=True)
    found = store.lexical("common rareness", 10)
    assert ids(found)[0] == "d7#0" and found[0].score > found[1].score and len(found) == 10


CONDITIONS: list[tuple[dict[str, Any], set[int]]] = [
    ({"lang": "en"}, {0, 2}),
    ({"lang": ["en", "de"]}, {0, 1, 2}),
    ({"lang": "en", "year": 3}, {2}),
    ({"ok": True}, {1}),
    ({"year": "3"}, {2, 3}),
    ({"no": "x"}, set()),
]


@pytest.mark.parametrize(("where", "expected"), CONDITIONS)
def test_a_condition_narrows_both_searches(store: Store, where: dict[str, Any], expected: set[int]) -> None:
    facts: list[dict[str, Any]] = [
        {"lang": ["en", "fr"]},
        {"lang": "de", "ok": True},
        {"lang": "en", "year": 3},
        {"lang": "it's", "year": 3},
    ]
    rows = [Passage(f"d{i}#0", f"d{i}", "", "red fox", metadata=facts[i]) for i in range(4)]
    store.upsert(rows, vectors(4), new=True)
    wanted = {f"d{i}#0" for i in expected}
    assert set(ids(store.search(vectors(1, seed=3)[0], 4, where))) == wanted
    assert set(ids(store.lexical("fox", 4, where))) == wanted
    assert ids(store.lexical("fox", 4, {"lang": "it's"})) == ["d3#0"]


def test_a_document_is_replaced_whole(store: Store) -> None:
    store.upsert([*passages("a", 5), *passages("b", 2)], vectors(7), new=True)
    store.upsert(passages("a", 2, word="green", digest="new"), vectors(2))
    assert store.count() == 4 and store.documents()["a"].digest == "new"
    assert set(ids(store.lexical("green", 9))) == {"a#0", "a#1"} and set(ids(store.lexical("red", 9))) == {"b#0", "b#1"}
    store.delete(["a", "nobody"])
    assert store.count() == 2 and set(store.documents()) == {"b"} and store.get(["a#0"]) == []


def test_what_was_acknowledged_is_there_again(name: str, tmp_path: Path) -> None:
    first = opened(name, tmp_path / "index")
    first.upsert(passages("a", 3), vectors(3), new=True)
    first.upsert(passages("b", 2), vectors(2), new=True)
    first.delete(["a"])
    first.close()
    again = opened(name, tmp_path / "index")
    assert again.get(["b#0", "b#1"]) == passages("b", 2) and again.count() == 2
    assert ids(again.search(vectors(2)[1], 1)) == ["b#1"]
    again.close()


def test_optimizing_changes_no_answer(store: Store) -> None:
    for n in range(6):
        store.upsert(passages(f"d{n}", 4), vectors(4, seed=n), new=True)
    store.delete(["d2"])
    query_D = vectors(1, seed=99)[0]
    before = store.search(query_D, 7), sorted(ids(store.lexical("fox", 30)))
    store.optimize()
    after = store.search(query_D, 7), sorted(ids(store.lexical("fox", 30)))
    assert ids(before[0]) == ids(after[0]) and before[1] == after[1]


def test_facts_are_json(store: Store) -> None:
    import json

    facts = json.loads(json.dumps(store.facts()))
    assert facts["passages"] == 0 and facts["kind"]


def test_a_store_agrees_with_a_dict(name: str, tmp_path: Path) -> None:
    """`python -m bench.index_kill --operations 20000` does the same for longer."""
    assert operate(lambda folder: opened(name, folder), tmp_path, examples=4, steps=12) > 20
