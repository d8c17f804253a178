"""One model on both sides, or two."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.model.conftest import MakeModel
from twofold.model.hub import as_cross_encoder
from twofold.model.system import System


def test_one_model_on_both_sides(make_model: MakeModel) -> None:
    model = make_model(prompts={"query": "query : "})
    model.rerank_weight = 0.3
    system = System.of(model)
    assert system.models == (model,) and system.rerank_weight == 0.3
    assert np.array_equal(system.encode_queries(["a dog"]), model.encode_queries(["a dog"]))
    assert np.array_equal(system.encode_documents(["a dog"]), model.encode_documents(["a dog"]))
    assert np.array_equal(system.score([("a", "dog")]), model.score([("a", "dog")]))
    assert system.describe()["models"] == 1


def test_two_specialists(make_model: MakeModel) -> None:
    embedder, reranker = make_model("none", tasks={"retrieve": {}}), make_model("uniform", tasks={"rerank": {}})
    system = System(embedder, reranker, 0.5)
    system.encode_documents(["dog " * 60])
    system.score([("what " * 40, "a dog")])
    assert system.models == (embedder, reranker) and system.truncated == {"texts": 1, "pairs": 1}
    told = json.loads(json.dumps(system.describe()))
    assert [member["tasks"] for member in told["members"]] == [["retrieve"], ["rerank"]]
    assert [member["router"] for member in told["members"]] == [None, "uniform"]


def test_a_weight_beyond_its_range(make_model: MakeModel) -> None:
    model = make_model("none")
    with pytest.raises(ValueError, match="rerank_weight 1.5: use 0 to 1"):
        System(model, model, 1.5)


def test_a_reranker_of_whole_lists_says_so_and_what_it_declares(make_model: MakeModel) -> None:
    model = make_model(
        "uniform", tasks={"retrieve": {}, "rerank": {"form": "listwise", "documents_as": "retrieve", "k": 3, "document_tokens": 5}}
    )
    system = System.of(model)
    assert system.reads_lists and not System.of(make_model()).reads_lists
    declared = json.loads(json.dumps(system.describe()))["members"][0]["declares"]
    assert declared["rerank"]["k"] == 3
    assert "declares" not in System.of(make_model()).describe()["members"][0]
    with pytest.raises(ValueError, match="not pair by pair"):
        model.eval()
        as_cross_encoder(model).predict([("a", "dog")])
