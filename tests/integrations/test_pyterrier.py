"""PyTerrier's pipelines over our transformers, without Java."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("pyterrier")

from tests.serve.conftest import PAGES, THREE  # noqa: E402
from tests.tiny_trial import stirred, tiny_unified, write_backbone  # noqa: E402
from twofold.integrations.pyterrier import Reranker, Retriever  # noqa: E402
from twofold.model.system import System  # noqa: E402

DOCUMENTS = [{"docno": name, "text": text} for name, (_, text) in PAGES.items()]
QUERIES = [("q1", "what is a lazy dog"), ("q2", "the red fox")]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    folder: Path = tmp_path_factory.mktemp("pyterrier")
    return System.of(stirred(tiny_unified(write_backbone(folder / "backbone"), THREE), size=0.2).eval())


def test_retrieve_then_rerank(system: System) -> None:
    pipeline = Retriever(system, DOCUMENTS) % 3 >> Reranker(system)
    frame = pipeline(pd.DataFrame(QUERIES, columns=["qid", "query"]))
    texts = {each["docno"]: each["text"] for each in DOCUMENTS}
    for identity, query in QUERIES:
        rows = frame[frame["qid"] == identity]
        dense = system.encode_documents(list(texts.values())) @ system.encode_queries([query])[0]
        best = [list(texts)[i] for i in np.argsort(-dense, kind="stable")[:3]]
        wanted = dict(zip(best, system.score([(query, texts[name]) for name in best]).tolist(), strict=True))
        assert set(rows["docno"]) == set(best) and list(rows["rank"]) == [0, 1, 2]
        assert np.allclose(rows["score"], [wanted[name] for name in rows["docno"]], atol=1e-4)
        assert list(rows["score"]) == sorted(rows["score"], reverse=True)


def test_nothing_in_nothing_out(system: System) -> None:
    empty = pd.DataFrame([], columns=["qid", "query"])
    assert len((Retriever(system, DOCUMENTS) >> Reranker(system))(empty)) == 0
