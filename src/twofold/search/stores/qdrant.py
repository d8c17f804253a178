"""Qdrant, a server or a cluster of them: for more passages, or more searches, than one machine holds.

Its words are sparse vectors whose weights are BM25's (the server counts how rare a word is). Replacing a document takes two requests: new
passages first, then the old ones go. A search in between may see both, and a writer that dies in between leaves a document that says so
of itself: it counts as changed, and the next `twofold index` mends it. Shapes: N passages, D features.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.errors import CheckpointError, ConfigError
from twofold.ranking import stems
from twofold.search.stores import Known, Match, Passage, Where, tags, wanted

KEY = "QDRANT_API_KEY"
"""The environment variable that holds the server's key: an index must not."""
NAMESPACE = uuid.UUID("5e0f2a0c-6a6e-4c0f-9d5d-6d1d6e5a7b10")
"""Qdrant's ids are UUIDs: ours are made from the passages' own."""
K1, B, WORDS = 1.2, 0.75, 60
"""BM25's, and the words of a usual passage: the server does not know the average."""
AT_ONCE = 256
"""Points of one request."""
TEXT = ("id", "document", "title", "text", "source", "origin", "digest")


class QdrantStore:
    """See `Store`; for `search` from one committed state, see the top of this file."""

    def __init__(self, client: Any, models: Any, collection: str, width: int, facts: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        """Makes the collection if there is none. `facts` are told on; `made` goes into `create_collection`."""
        self._client, self._models, self.collection, self.width, self._facts = client, models, collection, width, facts
        with _named(collection):
            if not client.collection_exists(collection):
                self._make(made)
            size = client.get_collection(collection).config.params.vectors["dense"].size
        if size != width:
            raise CheckpointError(f"collection {collection!r}: holds vectors of {size} features, and the model's have {width}")

    def upsert(self, passages: Sequence[Passage], vector_ND: NDArray[np.float32], *, new: bool = False) -> None:
        """See `Store`."""
        if vector_ND.shape != (len(passages), self.width):
            raise ValueError(f"vectors {vector_ND.shape} for {len(passages)} passages of width {self.width}")
        stamp, parts = uuid.uuid4().hex, Counter(passage.document for passage in passages)
        points = [
            self._models.PointStruct(
                id=_uuid(passage.id),
                vector={"dense": vector_D.tolist(), **({"words": self._sparse(_weights(words))} if words else {})},
                payload={**_payload(passage), "stamp": stamp, "of": parts[passage.document]},
            )
            for passage, vector_D, words in zip(passages, vector_ND, stems([passage.body for passage in passages]), strict=True)
        ]
        with _named(self.collection):
            for start in range(0, len(points), AT_ONCE):
                self._client.upsert(self.collection, points[start : start + AT_ONCE], wait=True)
            if not new:
                old = self._models.FieldCondition(key="stamp", match=self._models.MatchValue(value=stamp))
                self._delete([*parts], must_not=[old])

    def delete(self, documents: Iterable[str]) -> None:
        """See `Store`."""
        names = list(dict.fromkeys(documents))
        with _named(self.collection):
            for start in range(0, len(names), AT_ONCE):
                self._delete(names[start : start + AT_ONCE])

    def search(self, vector_D: NDArray[np.float32], k: int, where: Where | None = None) -> list[Match]:
        """See `Store`."""
        return self._query(np.asarray(vector_D, np.float32).tolist(), "dense", k, where)

    def lexical(self, text: str, k: int, where: Where | None = None) -> list[Match]:
        """See `Store`."""
        words = stems([text])[0]
        return self._query(self._sparse({_word(word): 1.0 for word in words}), "words", k, where) if words else []

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """See `Store`."""
        with _named(self.collection):
            found = self._client.retrieve(self.collection, [_uuid(identity) for identity in ids], with_payload=True) if ids else []
        passages = {point.payload["id"]: _passage(point.payload) for point in found}
        return [passages[identity] for identity in ids if identity in passages]

    def documents(self) -> dict[str, Known]:
        """See `Store`. A document of which not all passages are there, or some of an older state still are, has no digest."""
        known: dict[str, Known] = {}
        stamps: dict[str, set[str]] = {}
        counts: Counter[str] = Counter()
        parts: dict[str, int] = {}
        for payload in self._scroll(["document", "digest", "origin", "stamp", "of"]):
            name = payload["document"]
            known[name] = Known(payload["digest"], payload["origin"])
            stamps.setdefault(name, set()).add(payload["stamp"])
            counts[name] += 1
            parts[name] = payload["of"]
        torn = {name for name in known if len(stamps[name]) > 1 or counts[name] != parts[name]}
        return {name: each._replace(digest="") if name in torn else each for name, each in known.items()}

    def count(self) -> int:
        """See `Store`."""
        with _named(self.collection):
            return int(self._client.count(self.collection, exact=True).count)

    def optimize(self) -> None:
        """The server does that by itself."""

    def facts(self) -> dict[str, Any]:
        """See `Store`."""
        words = "BM25 by sparse vectors, English"
        return {"kind": "qdrant", **self._facts, "passages": self.count(), "vectors": "approximate: HNSW", "words": words}

    def close(self) -> None:
        """See `Store`."""
        self._client.close()

    def _make(self, made: Mapping[str, Any]) -> None:
        models = self._models
        self._client.create_collection(
            self.collection,
            vectors_config={"dense": models.VectorParams(size=self.width, distance=models.Distance.DOT)},
            sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            **made,
        )
        if self._facts.get("mode") == "server":
            for field in ("document", "tags", "stamp"):
                self._client.create_payload_index(self.collection, field, models.PayloadSchemaType.KEYWORD, wait=True)

    def _query(self, query: Any, using: str, k: int, where: Where | None) -> list[Match]:
        with _named(self.collection):
            found = self._client.query_points(
                self.collection, query=query, using=using, limit=k, query_filter=self._filter(where), with_payload=True
            )
        return [Match(_passage(point.payload), float(point.score)) for point in found.points]

    def _filter(self, where: Where | None) -> Any:
        models = self._models
        conditions = [models.FieldCondition(key="tags", match=models.MatchAny(any=any_of)) for any_of in wanted(where)]
        return models.Filter(must=conditions) if conditions else None

    def _delete(self, documents: Sequence[str], must_not: Sequence[Any] = ()) -> None:
        models = self._models
        of_these = models.FieldCondition(key="document", match=models.MatchAny(any=list(documents)))
        chosen = models.FilterSelector(filter=models.Filter(must=[of_these], must_not=list(must_not)))
        self._client.delete(self.collection, chosen, wait=True)

    def _scroll(self, fields: list[str]) -> Iterator[dict[str, Any]]:
        offset: Any = None
        while True:
            with _named(self.collection):
                points, offset = self._client.scroll(self.collection, limit=1000, offset=offset, with_payload=fields)
            for point in points:
                yield point.payload
            if offset is None:
                return

    def _sparse(self, weights: Mapping[int, float]) -> Any:
        return self._models.SparseVector(indices=list(weights), values=list(weights.values()))


def _payload(passage: Passage) -> dict[str, Any]:
    plain = {name: getattr(passage, name) for name in TEXT}
    return {**plain, "metadata": json.dumps(dict(passage.metadata), sort_keys=True), "tags": tags(passage.metadata)}


def _passage(payload: Mapping[str, Any]) -> Passage:
    return Passage(**{name: payload[name] for name in TEXT}, metadata=json.loads(payload["metadata"]))


def _weights(words: Sequence[str]) -> dict[int, float]:
    """What BM25 multiplies a word's rarity by, for each word of a passage (Robertson and Zaragoza 2009)."""
    found: dict[int, float] = {}
    for word, count in Counter(words).items():
        found[_word(word)] = count * (K1 + 1) / (count + K1 * (1 - B + B * len(words) / WORDS))
    return found


def _word(word: str) -> int:
    return zlib.crc32(word.encode())


def _uuid(identity: str) -> str:
    return str(uuid.uuid5(NAMESPACE, identity))


@contextmanager
def _named(collection: str) -> Iterator[None]:
    """What the client raises as an error that names the collection."""
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, ConnectionError, OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"collection {collection!r}: Qdrant: {first[:300]}") from error


def build(
    folder: Path,
    width: int,
    url: str = "http://localhost:6333",
    collection: str = "",
    local: bool = False,
    shard_number: int = 1,
    replication_factor: int = 1,
) -> QdrantStore:
    """`collection`: the folder's name, unless said. `local`: the client's own file store in `folder`, slow and for tests only."""
    try:
        from qdrant_client import QdrantClient, models
    except ImportError:
        raise ConfigError("the store 'qdrant' needs Qdrant's client: pip install 'twofold[qdrant]'") from None
    name = collection or folder.resolve().name
    if local:
        return QdrantStore(QdrantClient(path=str(folder / "qdrant")), models, name, width, {"mode": "local"}, {})
    with _named(name):
        client = QdrantClient(url=url, api_key=os.environ.get(KEY), timeout=60, check_compatibility=False)
    made = {"shard_number": shard_number, "replication_factor": replication_factor}
    return QdrantStore(client, models, name, width, {"mode": "server", "url": url}, made)
