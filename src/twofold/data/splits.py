"""Which queries are trained on, chosen on and tested on; no query is in two of these."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping

from twofold.records import Qrels

SPLITS = ("train", "dev", "test")


def bucket(identity: str, buckets: int = 10) -> int:
    """A bucket from 0 that depends on nothing but the id: sha256 modulo `buckets`."""
    return int(lot(identity), 16) % buckets


def lot(identity: str) -> str:
    """A place in an order that depends on nothing but the id: its sha256."""
    return hashlib.sha256(identity.encode("utf-8")).hexdigest()


def normalised(text: str) -> str:
    """The words of a query without case and punctuation, so that two spellings of one question are recognised as one."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def separate(judged: Mapping[str, Qrels], queries: Mapping[str, str], counts: Counter[str]) -> dict[str, Qrels]:
    """The splits of a dataset made disjoint, with a dev split.

    Training queries whose id or normalised text is also in test or dev are dropped and counted. Where there is no dev split, the tenth
    of train whose id falls in `bucket` 0 becomes it (of a train so small that none does, the one with the smallest sha256).
    """
    splits = {name: dict(judged[name]) for name in SPLITS if judged.get(name)}
    train = splits.pop("train", {})
    train = _without(train, splits.get("test", {}), queries, counts, "train query also in test")
    if len(train) > 1 and "dev" not in splits:
        cut = [query for query in train if bucket(query) == 0] or [min(train, key=lot)]
        splits["dev"] = {query: train[query] for query in cut}
        train = {query: grades for query, grades in train.items() if query not in splits["dev"]}
    train = _without(train, splits.get("dev", {}), queries, counts, "train query also in dev")
    splits["train"] = train
    return {name: splits[name] for name in SPLITS if splits.get(name)}


def _without(train: Qrels, other: Qrels, queries: Mapping[str, str], counts: Counter[str], kind: str) -> dict[str, Mapping[str, int]]:
    texts = {normalised(queries[query]) for query in other}
    kept = {query: grades for query, grades in train.items() if query not in other and normalised(queries[query]) not in texts}
    if len(kept) < len(train):
        counts[kind] += len(train) - len(kept)
    return kept
