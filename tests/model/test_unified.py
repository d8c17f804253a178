"""One model: vectors, scores and rankings, what it refuses, and what it counts."""

from __future__ import annotations

import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from tests.model.conftest import MakeModel
from twofold.core.inject import mixtures
from twofold.model import unified

TEXTS = ["the red fox runs over the lazy dog", "a dog", "", "what is it", "fox " * 60]
PAIRS = [("what is it", "a red fox"), ("the dog", "lazy " * 70), ("a", ""), ("what " * 30, "fox")]


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(make_model: MakeModel) -> None:
    model = make_model()
    vectors = model.encode(TEXTS)
    assert vectors.shape == (5, 32) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([model.encode([text]) for text in TEXTS])
    assert abs(alone - vectors).max() < 1e-6
    assert abs(model.encode(TEXTS, token_budget=8) - vectors).max() < 1e-6


def test_the_vectors_of_a_window_are_not_held_beside_the_result(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model, numbers = make_model(), unified._numpy
    windows: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def watched(tensor: Tensor) -> Any:
        found = numbers(tensor)
        alive.append(sum(window() is not None for window in windows))
        windows.append(weakref.ref(found))
        return found

    monkeypatch.setattr(unified, "WINDOW", 2)
    monkeypatch.setattr(unified, "_numpy", watched)
    assert abs(model.encode(TEXTS * 3) - np.tile(model.encode(TEXTS), (3, 1))).max() < 1e-6
    assert len(windows) == 8 + 3 and max(alive) <= 1


def test_scores_do_not_depend_on_the_batch(make_model: MakeModel) -> None:
    model = make_model()
    scores = model.score(PAIRS)
    assert scores.shape == (4,)
    assert abs(np.concatenate([model.score([pair]) for pair in PAIRS]) - scores).max() < 2e-6 * scores.max()


def test_a_ranking_is_by_score_and_equal_scores_keep_their_order(make_model: MakeModel) -> None:
    model = make_model()
    documents = ["a dog", "the red fox", "a dog", "over the"]
    ranked = model.rank("what is red", documents)
    assert [each.score for each in ranked] == sorted((each.score for each in ranked), reverse=True)
    assert [each.index for each in ranked if each.document == "a dog"] == [0, 2]
    assert all(each.document == documents[each.index] for each in ranked)
    assert model.rank("what is red", documents, top_k=2) == ranked[:2] and model.rank("what", []) == []


def test_prompts_and_dimensions(make_model: MakeModel) -> None:
    model = make_model(prompts={"query": "query : "})
    plain = model.encode(["a red fox"])
    assert abs(model.encode_queries(["a red fox"]) - model.encode(["query : a red fox"])).max() < 1e-6
    assert np.array_equal(model.encode_documents(["a red fox"]), plain)
    cut = model.encode(["a red fox"], dims=4)
    assert cut.shape == (1, 4) and np.allclose(cut, plain[:, :4] / np.linalg.norm(plain[:, :4]), atol=1e-6)
    with pytest.raises(ValueError, match="dims 33: use 1 to 32"):
        model.encode(["a"], dims=33)
    with pytest.raises(ValueError, match="prompt 'quary'"):
        model.encode(["a"], prompt="quary")


def test_nothing_in_nothing_out(make_model: MakeModel) -> None:
    model = make_model()
    assert model.encode([]).shape == (0, 32) and model.score([]).shape == (0,)


def test_what_is_no_text_is_refused(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(TypeError, match="a list of texts, not one text"):
        model.encode("a text")
    with pytest.raises(TypeError, match="text 1 is a int"):
        model.encode(["a", 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="text 0 holds a lone surrogate at character 4"):
        model.encode(["fox \ud800"])


def test_cuts_are_counted(make_model: MakeModel) -> None:
    model = make_model()
    model.encode(TEXTS)
    model.score(PAIRS)
    assert model.truncated == {"texts": 1, "pairs": 2}


def test_progress_is_told_and_the_mode_comes_back(make_model: MakeModel) -> None:
    model, told = make_model().train(), []
    model.encode(TEXTS, progress=lambda done, total: told.append((done, total)))
    assert told == [(5, 5)] and model.training


def test_a_task_that_the_model_was_not_made_for(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match=r"not made for 'rerank'; it does \['retrieve'\]"):
        make_model(tasks={"retrieve": {}}).score(PAIRS)


def test_routings_are_readable(make_model: MakeModel) -> None:
    found = make_model("soft").routings(texts=["a dog", "a red fox"])
    assert len(found) == 12 and all(routing.weight.shape == (2, 3) for routing in found.values())
    assert {routing.tasks for routing in make_model("soft").routings(pairs=PAIRS).values()} == {("rerank",)}


def test_folding_changes_nothing_and_unfolding_brings_back(make_model: MakeModel) -> None:
    model = make_model("by_task")
    before, scores = model.encode(TEXTS), model.score(PAIRS)
    model.fold("retrieve")
    assert abs(model.encode(TEXTS) - before).max() < 1e-5
    with pytest.raises(RuntimeError, match="folded for task 'retrieve'"):
        model.score(PAIRS)
    model.unfold()
    assert np.array_equal(model.encode(TEXTS), before) and np.array_equal(model.score(PAIRS), scores)


def test_every_parameter_is_in_one_group(make_model: MakeModel) -> None:
    model = make_model("soft")
    groups = model.groups()
    assert set(groups) == {"expert:embedding", "expert:reranking", "expert:shared", "router", "head:rerank", "backbone"}
    assert sum(len(members) for members in groups.values()) == len(list(model.parameters()))


def test_freed_memory_is_given_back_after_each_window_of_long_work(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(unified, "give_back", lambda: given.append(None))
    monkeypatch.setattr(unified, "WINDOW", 2)
    model = make_model()
    model.encode(TEXTS)
    assert len(given) == 3
    model.encode(TEXTS[:2])
    assert len(given) == 3


def test_a_model_goes_through_pickle(make_model: MakeModel) -> None:
    """As to a process that was spawned: what is kept stays behind."""
    model = make_model()
    want = model.encode(["the red fox"])
    made = pickle.loads(pickle.dumps(model))
    assert np.array_equal(made.encode(["the red fox"]), want)
    assert not any(layer.bank._kept.made for layer in mixtures(pickle.loads(pickle.dumps(model)).backbone.model))
