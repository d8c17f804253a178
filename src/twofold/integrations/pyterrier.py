"""PyTerrier: a system as transformers, for pipelines such as `retriever >> Reranker(system)`. Only PyTerrier's Python part is used.

first = Retriever(system, [{"docno": "d1", "text": "…"}, …])
(first % 20 >> Reranker(system)).search("a question")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyterrier as pt

from twofold.model.system import System
from twofold.ranking import exact_top_k


class Retriever(pt.Transformer):  # type: ignore[misc, unused-ignore]
    """Dense retrieval over documents in memory: frames with `qid` and `query` → their `num_results` nearest documents, with texts."""

    def __init__(self, system: System, documents: Iterable[Mapping[str, str]], num_results: int = 1000) -> None:
        super().__init__()
        rows = [(each["docno"], each["text"]) for each in documents]
        self.system, self.num_results = system, num_results
        self.frame = pd.DataFrame(rows, columns=["docno", "text"])
        self.vector_MD = system.encode_documents([text for _, text in rows])

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Adds `docno`, `text`, `score` and `rank` (from 0)."""
        if not len(frame):
            return pd.DataFrame(columns=[*frame.columns, *self.frame.columns, "score", "rank"])
        found, scores = exact_top_k(self.system.encode_queries(list(frame["query"])), [self.vector_MD], self.num_results)
        parts = []
        for (_, query), places, score in zip(frame.iterrows(), found, scores, strict=True):
            part = self.frame.iloc[places].assign(**query.to_dict(), score=score.astype(float), rank=np.arange(len(places)))
            parts.append(part)
        return pd.concat(parts, ignore_index=True)


class Reranker(pt.Transformer):  # type: ignore[misc, unused-ignore]
    """Frames with `qid`, `query`, `docno` and `text` → the same rows with the pair's raw score and the new rank (from 0)."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of a query stay together, its best first."""
        given: Any = zip(frame["query"], frame["text"], strict=True) if len(frame) else ()
        scored = frame.assign(score=self.system.score([(str(query), str(text)) for query, text in given]).astype(float))
        ordered = scored.sort_values(["qid", "score"], ascending=[True, False], kind="stable").reset_index(drop=True)
        return ordered.assign(rank=ordered.groupby("qid").cumcount())
