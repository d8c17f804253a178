"""An index and what is done with it: searches and answers, with the model behind the queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twofold.model.system import System
from twofold.search.pipeline import Callables, Found, Hit, Mode, Pipeline, Routing
from twofold.search.reader import Reader
from twofold.search.stores import Store, Where
from twofold.serve.engine import Blocking


class Supported(Protocol):
    """An answer: none where nothing supports one. The places are in the hits' texts."""

    answer: str | None
    score: float | None
    citations: Sequence[Any]


class Library:
    """`fusion`: the share of vectors in a hybrid first stage, as for `Pipeline`."""

    def __init__(self, store: Store, system: System, fusion: float | None = None) -> None:
        self.store, self.reader, self.fusion = store, Reader.of(system), fusion
        self.passage_tokens = system.reranker.tokens.pair_length // 2

    def tokens(self, depth: int, rerank: bool) -> int:
        """About what a search costs the model, before it is known what it finds."""
        return 32 + (min(depth, self.store.count()) * self.passage_tokens if rerank else 0)

    def search(
        self, model: Blocking, query: str, k: int, depth: int, mode: Mode, where: Where | None, explain: bool, rerank: bool
    ) -> Found:
        """See `Pipeline.search`."""
        return Pipeline(self.store, self._callables(model), fusion=self.fusion).search(query, k, depth, mode, where, explain, rerank)

    def close(self) -> None:
        """Gives the store back."""
        self.store.close()

    def _callables(self, model: Blocking) -> Callables:
        direct = self.reader.callables

        def routing(query: str, bodies: Sequence[str]) -> tuple[Routing, Sequence[Routing]]:
            assert direct.routing is not None
            look = direct.routing
            return model.call(lambda: look(query, bodies), sum(len(query) + len(body) for body in bodies) // 3)

        return Callables(model.encode_queries, model.score, direct.rerank_weight, routing if direct.routing else None)


def citations_of(hits: Sequence[Hit], found: Supported) -> list[dict[str, Any]]:
    """The citations with what a reader needs to find them."""
    by_id = {hit.id: hit for hit in hits}
    return [
        {
            "id": each.id,
            "document": by_id[each.id].document,
            "title": by_id[each.id].title,
            "source": by_id[each.id].source,
            "start": each.start,
            "end": each.end,
            "text": by_id[each.id].text[each.start : each.end],
        }
        for each in found.citations
        if each.id in by_id
    ]
