"""The texts that probes look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.probes.conftest import MakeSystem
from tests.probes.test_gradients import LABELS
from tests.tiny_trial import write_beir
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import DataError
from twofold.probes._material import all_passes, candidates, chosen, label_passes, pair_tasks, ranking_passes, sample, tokens_of


def test_a_sample_is_of_queries_with_their_relevant_document_first(dataset: Dataset) -> None:
    one = sample(dataset, "train", queries=5, negatives=2)
    assert len(one.queries) == 5 and sum(grade > 0 for *_, grade in one.pairs) == 5
    assert [grade for *_, grade in one.pairs if grade > 0] == [1] * 5
    first = {query: grade for query, _, grade in reversed(one.pairs)}
    assert set(first.values()) == {1}
    for (query, document), (i, j, grade) in zip(one.pair_texts, one.pairs, strict=True):
        assert (query, document) == (one.queries[i], one.documents[j])
        assert not grade or dataset.qrels("train")[one.query_ids[i]]
    assert len(set(one.documents)) == len(one.documents)
    assert sample(dataset, "train", 5, 2) == one
    assert set(sample(dataset, "train", 3, 2).query_ids) < set(one.query_ids)
    with pytest.raises(DataError, match="no split"):
        sample(dataset, "nowhere", 5)


def test_candidates_are_bm25s_that_are_not_relevant(dataset: Dataset) -> None:
    small = chosen(dataset, "train", 6)
    found = candidates(small, "train", 3)
    assert small.splits == ("train",) and len(found) == 6
    for query, row in found.items():
        assert len(row) <= 3 and list(row.values()) == sorted(row.values(), reverse=True)
        assert all(small.qrels("train")[query].get(document, 0) <= 0 for document in row)


def test_passes_are_made_as_the_tasks_make_them(make: MakeSystem, dataset: Dataset) -> None:
    system, notes = make(), list[str]()
    one = sample(dataset, "train", 4)
    passes = ranking_passes(system, one, notes)
    assert [(each.task, each.side, each.size) for each in passes] == [
        ("retrieve", "query", 4),
        ("retrieve", "document", len(one.documents)),
        ("rerank", "pair", len(one.pairs)),
    ]
    assert not notes


def test_lists_are_left_out_and_said(make: MakeSystem, dataset: Dataset) -> None:
    system, notes = make(rerank={"form": "listwise"}), list[str]()
    assert {each.side for each in ranking_passes(system, sample(dataset, "train", 4), notes)} == {"query", "document"}
    assert "reads whole lists" in notes[0]
    assert pair_tasks(system) == ["rerank"]


def test_labelled_texts_are_passes_of_the_task_that_knows_their_labels(make: MakeSystem, dataset: Dataset, tmp_path: Path) -> None:
    system, notes = make(classify={"labels": ["a", "b"]}), list[str]()
    (one,) = label_passes(system, LABELS, "train", 5)
    assert (one.task, one.side, one.dataset, one.size) == ("classify", "text", "moods", 5)
    other = replace(open_dataset(write_beir(tmp_path / "tiny")), name="other")
    passes = all_passes(system, dataset, (LABELS, other), "train", 4, notes)
    assert {each.dataset for each in passes} == {"tiny", "moods", "other"}
    assert all_passes(system, dataset, (LABELS,), "dev", 4, notes)
    assert "moods has no split 'dev'; 'train' is taken" in notes
    strange = replace(LABELS, name="strange", texts={"train": tuple(replace(each, label="z") for each in LABELS.texts["train"])})
    assert all_passes(system, dataset, (strange,), "train", 4, notes) and "strange: no task of this model has its labels" in notes


def test_inputs_are_cut_but_never_made_longer(make: MakeSystem) -> None:
    model = make().embedder
    assert (tokens_of(model, 12).max_length, tokens_of(model, 12).pair_length) == (12, model.tokens.query_length + 8)
    assert tokens_of(model, 0) is model.tokens
    assert tokens_of(model, 999).max_length == model.tokens.max_length
