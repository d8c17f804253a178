"""MTEB's three roles on a folder of this machine, without a network; its scores are our evaluation's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")

from tests.serve.conftest import THREE  # noqa: E402
from tests.tiny_trial import stirred, tiny_unified, write_backbone, write_beir  # noqa: E402
from twofold.data.sources import open_dataset  # noqa: E402
from twofold.evaluate.evaluation import Settings, evaluate  # noqa: E402
from twofold.integrations.mteb import Encoder, Pipeline, Reranker, local_task  # noqa: E402
from twofold.model.system import System  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mteb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("MTEB_CACHE", str(folder / "cache"))
        patch.setenv("TWOFOLD_CACHE", str(folder / "own"))
        yield folder


@pytest.fixture(scope="module")
def system(place: Path) -> System:
    return System.of(stirred(tiny_unified(write_backbone(place / "backbone"), THREE), size=0.2).eval())


@pytest.fixture(scope="module")
def ours(place: Path, system: System) -> dict[str, Any]:
    """Our own evaluation of the same."""
    data = open_dataset(write_beir(place / "tiny"))
    settings = Settings(depth=10, bm25_rerank_depth=10, retrieval_depth=100)
    rows: dict[str, Any] = evaluate(system, data, "test", name="tiny", method="none", settings=settings).rows
    return rows


def run(role: Any, task: Any, place: Path, **options: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mteb.evaluate(role, task, cache=mteb.cache.ResultCache(place / "cache"), overwrite_strategy="always", **options)
    (result,) = found.task_results
    return float(result.scores["test"][0]["ndcg_at_10"])


def test_two_stages_and_the_pipeline_are_our_evaluation(place: Path, system: System, ours: dict[str, Any]) -> None:
    task = local_task(place / "tiny")
    dense = run(Encoder(system, "us/tiny"), task, place, prediction_folder=place / "predictions")
    assert dense == pytest.approx(ours["dense"]["nDCG@10"], abs=1e-4)
    second = local_task(place / "tiny").convert_to_reranking(place / "predictions", top_k=10)
    assert run(Reranker(system, "us/tiny"), second, place) == pytest.approx(ours["reranked"]["nDCG@10"], abs=1e-4)
    assert run(Pipeline(system, "us/tiny", depth=10), local_task(place / "tiny"), place) == pytest.approx(
        ours["pipeline"]["nDCG@10"], abs=1e-4
    )


def test_roles_have_names_of_their_own(system: System) -> None:
    roles = (Encoder(system, "us/tiny"), Reranker(system, "us/tiny"), Pipeline(system, "us/tiny"))
    assert len({role.mteb_model_meta.name for role in roles if role.mteb_model_meta}) == 3


def test_the_sides_of_a_question_have_their_prompts(system: System) -> None:
    system.embedder.tokens.prompts["query"] = "what is "
    try:
        from mteb.types import PromptType

        encoder = Encoder(system, "us/tiny")
        for kind, prompt in ((PromptType.query, "query"), (PromptType.document, "document"), (None, None)):
            got = encoder.encode([{"text": ["a fox"]}, {"text": ["a dog"]}], prompt_type=kind)
            assert np.allclose(got, system.embedder.encode(["a fox", "a dog"], prompt=prompt), atol=1e-6)
    finally:
        del system.embedder.tokens.prompts["query"]
