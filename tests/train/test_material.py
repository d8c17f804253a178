"""What a trial learns from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trial import write_beir
from tests.train.conftest import MakeConfig
from twofold.config import TrialConfig
from twofold.data.mixing import Mixture, TrainingSet
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import ConfigError
from twofold.train.material import Material, prepare_material
from twofold.train.start import mining_model


def material(config: TrialConfig, given: dict[str, Dataset] | None = None, learning: bool = True) -> tuple[Material, list[str]]:
    said: list[str] = []
    return prepare_material(config, lambda: mining_model(config, torch.device("cpu")), said.append, given or {}, learning=learning), said


def test_both_tasks_learn_from_the_same_examples_with_mined_negatives(make_config: MakeConfig, beir_dir: Path) -> None:
    found, said = material(make_config())
    assert found.sources["retrieve"] is found.sources["rerank"]
    assert isinstance(found.sources["retrieve"], TrainingSet)
    assert len(found.sources["retrieve"]) == 32
    assert found.datasets == (str(beir_dir),)
    assert any("BM25's top 5" in line for line in said)
    assert any("model's top 5 of 40" in line for line in said)
    without = make_config(data={"negatives": {"bm25_depth": 0, "model_depth": 0}})
    bare, said = material(without)
    assert said == []
    assert bare.sources["retrieve"].sha256 != found.sources["retrieve"].sha256


def test_dev_and_data_are_the_same_for_every_method(make_config: MakeConfig) -> None:
    pieces = [material(make_config(method={"name": name}))[0] for name in ("moe_lora", "hard_lora", "specialists", "zero_shot")]
    assert all(piece.dev is not None for piece in pieces)
    seen: Any = [(dev.candidates, dev.dataset.corpus.ids, dev.dataset.judged) for piece in pieces if piece.dev for dev in piece.dev.sets]
    assert all(each == seen[0] for each in seen)
    assert len({piece.sources["retrieve"].sha256 for piece in pieces}) == 1
    batches = [piece.sources["retrieve"].batch("retrieve", 3, 4, 2, seed=0) for piece in pieces]
    assert all(batch == batches[0] for batch in batches)


def test_a_task_that_answers_needs_answers(make_config: MakeConfig, beir_dir: Path) -> None:
    config = TrialConfig.model_validate({**make_config().model_dump(), "tasks": {"answer": {"batch": 2}}})
    found, _ = material(config)
    assert all(example.answers for example in found.sources["answer"].batch("answer", 0, 2, 1, seed=0))
    dumb = replace(open_dataset(beir_dir), answers={})
    with pytest.raises(ConfigError, match=r"its queries have no answers \(metadata.answers in queries.jsonl\), of which 'answer' learns"):
        material(config, {str(beir_dir): dumb})


def test_where_nothing_is_learnt_nothing_is_mined(make_config: MakeConfig) -> None:
    found, said = material(make_config(), learning=False)
    assert found.sources == {}
    assert found.dev is not None
    assert said == []


def test_a_trial_of_reranking_alone_mines_with_the_backbone_too(make_config: MakeConfig) -> None:
    found, _ = material(make_config())
    config = TrialConfig.model_validate({**make_config().model_dump(), "tasks": {"rerank": {"batch": 2}}})
    alone, said = material(config)
    assert alone.sources.keys() == {"rerank"}
    assert any("model's top" in line for line in said)
    assert alone.sources["rerank"].sha256 == found.sources["rerank"].sha256


@pytest.mark.parametrize(("share", "kind"), [(0.0, TrainingSet), (0.5, Mixture), (1.0, TrainingSet)])
def test_titles_take_their_share(share: float, kind: type, make_config: MakeConfig) -> None:
    found, _ = material(make_config(data={"title_pairs": share}))
    for task, source in found.sources.items():
        assert isinstance(source, kind)
        names = {example.query_id.split("/")[0] for step in range(12) for example in source.batch(task, step, 2, 1, seed=0)}
        assert names == {0.0: {"tiny"}, 0.5: {"tiny", "tiny-titles"}, 1.0: {"tiny-titles"}}[share]


def test_titles_get_hard_negatives_of_their_own(make_config: MakeConfig) -> None:
    batches = []
    for depth in (0, 5):
        found, said = material(make_config(data={"title_pairs": 1.0, "negatives": {"bm25_depth": depth, "model_depth": 0}}))
        assert any("titles, hard negatives from BM25" in line for line in said) == bool(depth)
        batches.append(found.sources["retrieve"].batch("retrieve", 0, 4, 1, seed=0))
    random, hard = ([example.document_ids for example in batch] for batch in batches)
    assert [ids[0] for ids in random] == [ids[0] for ids in hard]
    assert random != hard


def test_several_datasets_are_mixed(make_config: MakeConfig, beir_dir: Path, tmp_path: Path) -> None:
    other = write_beir(tmp_path / "other")
    found, _ = material(make_config(data={"train": [str(beir_dir), str(other)]}))
    assert isinstance(found.sources["rerank"], Mixture)
    assert {source.name for source in found.sources["rerank"].sources} == {"tiny", "other"}
    titled, _ = material(make_config(data={"train": [str(beir_dir), str(other)], "title_pairs": 0.5}))
    assert titled.sources["rerank"].name == "tiny+other+tiny-titles+other-titles"


def test_no_dev_split_is_said(make_config: MakeConfig, beir_dir: Path) -> None:
    whole = open_dataset(beir_dir)
    without = Dataset(whole.name, whole.corpus, {"train": whole.judged["train"]}, whole.texts, whole.sign)
    found, said = material(make_config(), {str(beir_dir): without})
    assert found.dev is None
    assert said[:2] == [f"{beir_dir} has no dev split", "there is no dev split: no early stopping, and the pair score weighs one half"]


def test_skipped_lines_are_counted_aloud(make_config: MakeConfig, beir_dir: Path) -> None:
    whole = open_dataset(beir_dir)
    skipped = Dataset(whole.name, whole.corpus, whole.judged, whole.texts, whole.sign, {"empty text": 3})
    assert f"{beir_dir}: skipped 3 × empty text" in material(make_config(), {str(beir_dir): skipped})[1]
