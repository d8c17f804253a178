"""The sample is fixed, honest about what it left out, and the same for every arm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_trial import write_beir
from twofold.data.sources import open_dataset
from twofold.data.splits import lot
from twofold.study.file import DataSpec, MeasureConfig
from twofold.study.sample import Samples, candidates, sampled


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "beir")


def test_so_many_queries_and_documents(beir: Path) -> None:
    whole, measure = open_dataset(str(beir)), MeasureConfig(queries=2)
    spec = DataSpec(train=["x"], documents=20, train_queries=5)
    found = sampled(whole, spec, measure)
    assert {split: len(found.qrels(split)) for split in found.splits} == {"train": 5, "dev": len(whole.qrels("dev")), "test": 2}
    assert list(found.qrels("test")) == sorted(whole.qrels("test"), key=lot)[:2]
    relevant = {d for split in found.splits for grades in found.qrels(split).values() for d, grade in grades.items() if grade}
    assert len(found.corpus) == 20 and relevant <= set(found.corpus.ids)
    assert found.fingerprint != whole.fingerprint == open_dataset(str(beir)).fingerprint
    assert found.fingerprint == sampled(whole, spec, measure).fingerprint != sampled(whole, spec, MeasureConfig(queries=3)).fingerprint


def test_the_whole_corpus_where_nothing_is_said(beir: Path) -> None:
    whole = open_dataset(str(beir))
    found = sampled(whole, DataSpec(train=["x"]), MeasureConfig())
    assert found.corpus.ids == whole.corpus.ids and dict(found.judged) == dict(whole.judged)


def test_candidates_are_bm25s_and_say_how_often_they_are_of_use(beir: Path) -> None:
    whole = open_dataset(str(beir))
    found = candidates(whole, MeasureConfig(rerank_queries=3, depth=5))
    assert len(found.run) == 3 and max(len(run) for run in found.run.values()) <= 5
    hits = [any(whole.qrels("test")[query].get(document) for document in run) for query, run in found.run.items()]
    assert found.present == sum(hits) / 3
    assert found.sha256 != candidates(whole, MeasureConfig(rerank_queries=3, depth=2)).sha256


def test_only_what_is_trained_on_is_cut_in_train(beir: Path, tmp_path: Path) -> None:
    other = write_beir(tmp_path / "other")
    spec = DataSpec(train=[str(beir)], test=[str(other)], train_queries=5)
    samples = Samples(MeasureConfig())
    assert len(samples.open(str(beir), spec).qrels("train")) == 5 < len(samples.open(str(other), spec).qrels("train"))  # type: ignore[union-attr]
    assert samples.open(str(beir), spec) is samples.open(str(beir), spec)
    assert samples.candidates(str(beir), spec) is samples.candidates(str(beir), spec)
    assert samples.dev([str(beir)], spec) is samples.dev([str(beir)], spec)


def test_labelled_texts_are_taken_whole(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(f'{{"text": "{split} {i}", "label": "{i % 2}"}}\n' for i in range(6)))
    samples, spec = Samples(MeasureConfig()), DataSpec(train=[str(tmp_path)])
    assert samples.all([str(tmp_path)], spec)[str(tmp_path)].splits == ("train", "dev", "test")
    assert samples.dev([str(tmp_path)], spec) is not None


def test_dev_judges_what_it_can_measure(beir: Path, tmp_path: Path) -> None:
    for name, dev in (("some", True), ("none", False)):
        (tmp_path / name).mkdir()
        for split in ("train", "dev") if dev else ("test",):
            (tmp_path / name / f"{split}.jsonl").write_text(f'{{"text": "a {split} fox", "label": "a"}}\n')
    samples, names = Samples(MeasureConfig()), [str(beir), str(tmp_path / "some"), str(tmp_path / "none")]
    spec = DataSpec(train=names)
    ranking = {"retrieve": True, "rerank:legal": True, "lm": False, "classify": False}
    for task, judged in ranking.items():
        assert samples.judges(names[:1], spec, [task]) is judged
        assert samples.judges(names[1:2], spec, [task]) is (task == "classify")
        assert not samples.judges(names[2:], spec, [task])
    assert samples.judges(names, spec, ["lm", "classify"]) and not samples.judges(names, spec, ["lm"])
