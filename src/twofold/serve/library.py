"""An index and what is done with it: searches and answers, with the model behind the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twofold.model.system import System
from twofold.search.answers import Answer, Extractive, answer
from twofold.search.pipeline import Callables, Found, Hit, Mode, Pipeline, Routing
from twofold.search.reader import Reader
from twofold.search.stores import Store, Where
from twofold.serve.engine import CHARACTERS_PER_TOKEN, Blocking
from twofold.tasks import task_name


@dataclass(frozen=True)
class Question:
    """What a search is asked; as for `Pipeline.search`."""

    query: str
    k: int = 10
    depth: int = 20
    mode: Mode = "hybrid"
    where: Where | None = None
    explain: bool = False
    rerank: bool = True


class Library:
    """`fusion`: the share of vectors in a hybrid first stage, as for `Pipeline`. A model with the task `answer` answers, too."""

    def __init__(self, store: Store, system: System, fusion: float | None = None) -> None:
        self.store, self.system, self.fusion = store, system, fusion
        self.reader = Reader.of(system)
        model, own = system.reranker, task_name("answer", system.variant)
        self.answerer = next((Extractive.of(model, task) for task in (own, "answer") if task in model.tasks), None)

    def tokens(self, question: Question) -> int:
        """About what a search costs the model, before it is known what it finds."""
        depth = min(max(question.k, question.depth), self.store.count())
        return 32 + (depth * self.system.reranker.tokens.pair_length // 2 if question.rerank else 0)

    def search(self, model: Blocking, question: Question) -> Found:
        """See `Pipeline.search`."""
        pipeline = Pipeline(self.store, self._callables(model), fusion=self.fusion)
        return pipeline.search(question.query, question.k, question.depth, question.mode, question.where, question.explain, question.rerank)

    def answer(self, model: Blocking, query: str, hits: Sequence[Hit], read: int) -> Answer:
        """The answer in the best `read` hits, by the model itself. Raises ValueError where it has not learnt to answer."""
        if self.answerer is None:
            raise ValueError("this model has not learnt to answer")
        plain = self.answerer.spans
        tokens = sum(len(query) + len(hit.body) for hit in hits[:read]) // CHARACTERS_PER_TOKEN
        score = model.score if self.answerer.score else None  # a pair that the search left out waits for the queue, too
        reader = replace(self.answerer, spans=lambda items: model.call(lambda: plain(items), tokens), score=score)
        return answer(query, hits, reader, depth=read)

    def close(self) -> None:
        """Gives the store back."""
        self.store.close()

    def _callables(self, model: Blocking) -> Callables:
        look = self.reader.callables.routing

        def routing(query: str, bodies: Sequence[str]) -> tuple[Routing, Sequence[Routing]]:
            assert look is not None
            return model.call(lambda: look(query, bodies), sum(len(query) + len(body) for body in bodies) // CHARACTERS_PER_TOKEN)

        shown = None if look is None else routing
        return replace(self.reader.callables, encode_query=model.encode_queries, score=model.score, routing=shown)
