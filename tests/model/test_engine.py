"""Who runs short queries: what may be asked for, when a graph is made, and that vectors stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.model.conftest import MakeModel
from twofold.backbone import graph
from twofold.backbone.backbone import Backbone
from twofold.errors import ConfigError
from twofold.model import engine, folder, mixed
from twofold.model.system import System

TEXTS = ["the red fox runs over the lazy dog", "a dog", ""]


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Which passes a graph was asked for, and with what gain; none is made."""
    asked: list[tuple[str, float]] = []

    def export(backbone: Backbone, task: str, gain: float = 0.0) -> str:
        asked.append((task, gain))
        return ""

    monkeypatch.setattr(graph, "export", export)
    monkeypatch.setattr(graph, "available", lambda: True)
    return asked


def test_a_loaded_models_queries_go_through_a_graph_and_stay_what_they_were(make_model: MakeModel, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = make_model("sides", tasks={"retrieve": {"sides": True}, "rerank": {}})
    folder.save(model, tmp_path / "model")
    fast = folder.load(tmp_path / "model", engine="openvino")
    assert list(fast.backbone.graphs) == ["retrieve/query"]
    np.testing.assert_allclose(fast.encode_queries(TEXTS[:1]), model.encode_queries(TEXTS[:1]), atol=1e-5)
    for made in (mixed.run([row]) for row in mixed.texts(System.of(fast), TEXTS, "query").rows):
        assert made[0].dtype == np.float32
    together = mixed.run(mixed.texts(System.of(model), TEXTS, "query").rows)
    alone = [mixed.run([row])[0] for row in mixed.texts(System.of(fast), TEXTS, "query").rows]
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.array_equal(fast.encode_documents(TEXTS), model.encode_documents(TEXTS)), "documents are another pass"
    assert folder.fingerprint(fast) == folder.fingerprint(model)


def test_auto_asks_for_a_gain_and_torch_for_nothing(make_model: MakeModel, exports: list[tuple[str, float]]) -> None:
    model = make_model("soft")
    engine.use_engine(model, "torch")
    assert exports == []
    engine.use_engine(model, "openvino")
    engine.use_engine(model, "auto")
    assert exports == [("retrieve", 0.0), ("retrieve", graph.GAIN)]


def test_auto_does_nothing_where_it_cannot_or_should_not(
    make_model: MakeModel, exports: list[tuple[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("none")
    monkeypatch.setattr(engine, "LARGE", 1000)
    engine.use_engine(model, "auto")
    monkeypatch.setattr(engine, "LARGE", 10**9)
    monkeypatch.setattr(graph, "available", lambda: False)
    engine.use_engine(model, "auto")
    assert exports == []


def test_passes_that_differ_by_query_have_no_graph(make_model: MakeModel, exports: list[tuple[str, float]]) -> None:
    engine.use_engine(make_model("none", tasks={"rerank": {}}), "openvino")
    assert exports == []


def test_what_cannot_be_is_said_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="engine 'onnx': use torch, openvino, auto"):
        folder.load(tmp_path / "nothing", engine="onnx")
    monkeypatch.setattr(graph, "available", lambda: True)
    with pytest.raises(ConfigError, match="its graphs are for the CPU"):
        engine.check_engine("openvino", "cuda")
    monkeypatch.setattr(graph, "available", lambda: False)
    with pytest.raises(ConfigError, match=r'pip install "twofold\[openvino\]"'):
        folder.load(tmp_path / "nothing", engine="openvino")
    engine.check_engine("auto", "cuda")
