"""What every store promises; a new file in `search/stores/` is tested without further ado.

A store that needs a server is tested in the mode that needs none, by `LOCAL`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from numpy.typing import NDArray

from tests.search.made import WIDTH, Dict, passages, vectors
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


@pytest.mark.parametrize(
    ("where", "expected"),
    [({"lang": "en"}, {0, 2}), ({"lang": ["en", "de"]}, {0, 1, 2}), ({"lang": "en", "year": 3}, {2}), ({"ok": True}, {1}), ({"year": "3"}, {2, 3}), ({"no": "x"}, set())],
)  # fmt: skip
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


class Machine(RuleBasedStateMachine):
    """Random writes on a store and on a dict beside it; every search is compared with a plain one."""

    store_name, folder, count = "exact", Path(), 0

    @initialize()
    def begin(self) -> None:
        type(self).count += 1
        self.place = self.folder / str(self.count)
        self.store, self.model = opened(self.store_name, self.place), Dict()

    @rule(names=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), sizes=st.integers(1, 3), seed=st.integers(0, 10**6))
    def upsert(self, names: list[int], sizes: int, seed: int) -> None:
        rows = [row for n in names for row in passages(f"d{n}", 1 + (sizes + n) % 3, digest=str(seed), lang=["en", "de"][seed % 2])]
        vector_ND = vectors(len(rows), seed)
        new = not any(f"d{n}" in self.model.documents() for n in names)
        self.store.upsert(rows, vector_ND, new=new)
        self.model.upsert(rows, vector_ND)

    @rule(names=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    def delete(self, names: list[int]) -> None:
        self.store.delete([f"d{n}" for n in names])
        self.model.delete([f"d{n}" for n in names])

    @rule(seed=st.integers(0, 10**6), k=st.integers(1, 8), lang=st.sampled_from([None, "en", "de"]))
    def search(self, seed: int, k: int, lang: str | None) -> None:
        where = {"lang": lang} if lang else None
        query_D = vectors(1, seed)[0]
        assert ids(self.store.search(query_D, k, where)) == self.model.search(query_D, k, where)
        assert set(ids(self.store.lexical("fox", 100, where))) == self.model.allowed(where)

    @rule()
    def optimize(self) -> None:
        self.store.optimize()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = opened(self.store_name, self.place)

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def same(self) -> None:
        assert self.store.count() == len(self.model.rows)
        assert self.store.documents() == self.model.documents()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def test_a_store_agrees_with_a_dict(name: str, tmp_path: Path) -> None:
    """`bench/index_kill.py --operations 20000` runs the same for longer."""
    kind = type("Here", (Machine,), {"store_name": name, "folder": tmp_path, "count": 0})
    quick = settings(
        max_examples=4, stateful_step_count=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(kind, settings=quick)
