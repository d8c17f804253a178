"""Batches of documents: once each in an epoch, the same for the same step, each rank its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.evaluate.toy import toy_dataset
from twofold.data.texts import DocumentSet
from twofold.errors import DataError


def test_an_epoch_has_every_document_once_and_the_next_another_order() -> None:
    source = DocumentSet(toy_dataset())
    epochs = [[document.id for step in range(5 * e, 5 * e + 5) for document in source.batch("lm", step, 2, 0, seed=3)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(source._corpus.ids) and epochs[0] != epochs[1]
    assert [document.id for document in source.batch("lm", 0, 2, 0, seed=3)] == epochs[0][:2]
    assert [document.id for document in source.batch("other", 0, 10, 0, seed=3)] != epochs[0]


def test_ranks_share_a_global_batch() -> None:
    source = DocumentSet(toy_dataset())
    whole = source.batch("lm", 1, 4, 0, seed=0)
    assert [document for rank in range(2) for document in source.batch("lm", 1, 2, 0, 0, rank, 2)] == whole


def test_too_large_a_batch_is_refused_and_the_documents_are_known() -> None:
    source = DocumentSet(toy_dataset())
    with pytest.raises(DataError, match="a batch of 6 × 2 .* from 10 documents"):
        source.batch("lm", 0, 6, 0, 0, 0, 2)
    smaller = replace(toy_dataset(), corpus=toy_dataset().corpus.select(["d0", "d1"]))
    assert len(source) == 10 and source.sha256 != DocumentSet(smaller).sha256
