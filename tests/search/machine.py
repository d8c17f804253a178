"""A store and a dict side by side under random operations (hypothesis)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.search.made import Dict, passages, vectors
from twofold.search.stores import Store

Open = Callable[[Path], Store]
NAMES = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)


class Machine(RuleBasedStateMachine):
    """Random writes on a store and on a dict beside it; every search is compared with a plain one."""

    open: Open
    places: itertools.count[int]
    folder: Path
    operations = 0

    @initialize()
    def begin(self) -> None:
        self.place = self.folder / str(next(self.places))
        self.store, self.model = self.open(self.place), Dict()

    @rule(names=NAMES, sizes=st.integers(1, 3), at=st.integers(0, 10**6))
    def upsert(self, names: list[int], sizes: int, at: int) -> None:
        rows = [row for n in names for row in passages(f"d{n}", 1 + (sizes + n) % 3, digest=str(at), lang=["en", "de"][at % 2])]
        vector_ND = vectors(len(rows), at)
        new = not any(f"d{n}" in self.model.documents() for n in names)
        self.store.upsert(rows, vector_ND, new=new)
        self.model.upsert(rows, vector_ND)

    @rule(names=NAMES)
    def delete(self, names: list[int]) -> None:
        self.store.delete([f"d{n}" for n in names])
        self.model.delete([f"d{n}" for n in names])

    @rule(at=st.integers(0, 10**6), k=st.integers(1, 8), lang=st.sampled_from([None, "en", "de"]))
    def search(self, at: int, k: int, lang: str | None) -> None:
        where = {"lang": lang} if lang else None
        query_D = vectors(1, at)[0]
        found = [match.passage for match in self.store.search(query_D, k, where)]
        assert [passage.id for passage in found] == self.model.search(query_D, k, where)
        assert found == [self.model.rows[passage.id][0] for passage in found]
        assert {match.passage.id for match in self.store.lexical("fox", 100, where)} == self.model.allowed(where)

    @rule()
    def optimize(self) -> None:
        self.store.optimize()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open(self.place)

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def same(self) -> None:
        type(self).operations += 1
        assert self.store.count() == len(self.model.rows)
        assert self.store.documents() == self.model.documents()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def operate(opened: Open, folder: Path, examples: int, steps: int, begin: int = 0) -> int:
    """Runs that many sequences of up to so many operations; how many there were. Raises where store and dict differ."""
    own = {"open": staticmethod(opened), "folder": folder, "places": itertools.count(), "operations": 0}
    kind = seed(begin)(type("Here", (Machine,), own))
    checks = list(HealthCheck)
    quick = settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None, suppress_health_check=checks)
    run_state_machine_as_test(kind, settings=quick)
    return int(kind.operations)
