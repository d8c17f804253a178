"""A model as search sees it."""

from __future__ import annotations

import numpy as np
import pytest

from twofold.core.inject import mixtures
from twofold.errors import CheckpointError
from twofold.model.folder import save
from twofold.model.state import fingerprint
from twofold.model.system import System
from twofold.search.reader import Reader


def test_it_gives_what_the_model_gives(system: System, reader: Reader) -> None:
    texts = ["a red fox", "the lazy dog"]
    assert np.array_equal(reader.callables.encode_query(texts), system.encode_queries(texts))
    assert np.array_equal(reader.callables.encode_document(texts), system.encode_documents(texts))
    assert np.array_equal(reader.callables.score([("fox", "dog")]), system.score([("fox", "dog")]))
    assert reader.fingerprint == fingerprint(system.embedder, "retrieve") and reader.width == 32
    assert reader.callables.rerank_weight == system.rerank_weight


def test_a_text_of_its_room_is_not_cut(system: System, reader: Reader) -> None:
    before = system.truncated
    text = " ".join(["fox"] * reader.room)
    reader.callables.encode_document([text])
    reader.callables.score([(" ".join(["what"] * 10), text)])
    assert system.truncated == before
    reader.callables.encode_document([text + " fox"])
    reader.callables.score([("what", " ".join(["fox"] * 40))])
    assert system.truncated["texts"] + system.truncated["pairs"] >= before["texts"] + before["pairs"] + 1


def test_spans_cover_the_words(reader: Reader) -> None:
    text = "The red  fox!"
    assert [[text[a:b] for a, b in row] for row in reader.spans([text, ""])] == [["The", "red", "fox", "!"], []]
    assert reader.spans([]) == []


def test_routing_is_of_every_layer_and_expert(system: System, reader: Reader) -> None:
    assert reader.callables.routing is not None
    alone, pairs = reader.callables.routing("a red fox", ["the lazy dog", "a fox runs"])
    layers = {layer.layer for layer in mixtures(system.embedder.backbone.model)}
    assert set(alone) == layers and len(pairs) == 2 and set(pairs[0]) == layers
    assert all(set(weights) == {"embedding", "shared"} for weights in alone.values())
    assert pairs[0] != pairs[1]
    layer = next(iter(layers))
    whole = system.embedder.routings(texts=["a red fox"], prompt="query")[layer].weight.flatten(0, -2).mean(0)
    assert list(alone[layer].values()) == pytest.approx(whole.tolist(), abs=1e-4)


def test_it_is_loaded_from_a_folder(system: System, reader: Reader, tmp_path: object) -> None:
    save(system.embedder, f"{tmp_path}/model")
    again = Reader.load(f"{tmp_path}/model")
    assert again.fingerprint == reader.fingerprint and again.identity["precision"] == "fp32"
    with pytest.raises(CheckpointError, match="no variant 'legal'"):
        Reader.load(f"{tmp_path}/model", variant="legal")
