"""Against the real libraries, offline: `datasets` reads a local repository, ir_datasets (if installed) a dataset registered here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from twofold.data.sources import open_dataset
from twofold.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache_dir: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def repository(folder: Path, configs: dict[str, dict[str, str]]) -> Path:
    """A hub repository on disk: config → split → file."""
    lines = ["---", "configs:"]
    for config, files in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, file in files.items():
            lines += [f"  - split: {split}", f"    path: {file}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


@pytest.mark.parametrize("judgements", ["default", "qrels"])
def test_the_layout_of_mteb_on_the_hub(tmp_path: Path, judgements: str) -> None:
    folder = tmp_path / "toy"
    write(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(30)])
    write(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"question {n}"} for n in range(30)])
    write(folder / "train.jsonl", [{"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1.0} for n in range(25)])
    write(folder / "test.jsonl", [{"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1.0} for n in range(25, 30)])
    splits = {"train": "train.jsonl", "test": "test.jsonl"}
    repository(folder, {"corpus": {"corpus": "corpus.jsonl"}, "queries": {"queries": "queries.jsonl"}, judgements: splits})
    dataset = open_dataset(f"hub:{folder}")
    assert dataset.name == "toy"
    assert len(dataset.corpus) == 30
    assert dataset.queries("test") == {f"q{n}": f"question {n}" for n in range(25, 30)}
    assert dataset.qrels("test")["q25"] == {"d25": 1}
    assert open_dataset(f"hub:{folder}").fingerprint == dataset.fingerprint


def test_triples_on_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "triples"
    triple = {"anchor": "q {n}", "positive": "yes {n}", "negative_1": "no {n}", "negative_2": "never"}
    write(folder / "t.jsonl", [{key: text.format(n=n) for key, text in triple.items()} for n in range(20)])
    repository(folder, {"triplet": {"train": "t.jsonl"}})
    dataset = open_dataset(f"hub:{folder}:triplet")
    assert len(dataset.corpus) == 41
    assert all(sorted(grades.values()) == [0, 0, 1] for grades in dataset.qrels("train").values())


def test_other_columns_say_what_is_expected(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    write(folder / "t.jsonl", [{"text": "x", "label": "y"}])
    repository(folder, {"default": {"train": "t.jsonl"}})
    with pytest.raises(DataError, match=r"columns text, label; expected corpus and queries, or columns query, positive"):
        open_dataset(f"hub:{folder}")


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> list[str]:
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub\nand a second line")

    monkeypatch.setattr(datasets, "get_dataset_config_names", unreachable)
    with pytest.raises(DataError, match=r"^hub:nobody/nothing: Couldn't reach 'nobody/nothing' on the Hub$"):
        open_dataset("hub:nobody/nothing")


@pytest.mark.parametrize(("spec", "module"), [("hub:a/b", "datasets"), ("ir_datasets:beir/scifact", "ir_datasets")])
def test_a_missing_library_names_the_command(monkeypatch: pytest.MonkeyPatch, spec: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=f"pip install {module}"):
        open_dataset(spec)


def test_a_dataset_of_ir_datasets(tmp_path: Path) -> None:
    library = pytest.importorskip("ir_datasets")
    (tmp_path / "docs.tsv").write_text("".join(f"d{n}\ttext {n}\n" for n in range(30)))
    for split, numbers in {"train": range(25), "test": range(25, 30)}.items():
        (tmp_path / f"{split}.tsv").write_text("".join(f"q{n}\tquestion {n}\n" for n in numbers))
        (tmp_path / f"{split}.qrels").write_text("".join(f"q{n} 0 d{n} 1\nq{n} 0 d{n - 1 if n else 1} -2\n" for n in numbers))
        part = library.create_dataset(str(tmp_path / "docs.tsv"), str(tmp_path / f"{split}.tsv"), str(tmp_path / f"{split}.qrels"))
        library.registry.register(f"twofold-toy/{split}", part)
    library.registry.register("twofold-toy", library.create_dataset(str(tmp_path / "docs.tsv")))
    whole = open_dataset("ir_datasets:twofold-toy")
    assert whole.name == "twofold-toy"
    assert whole.splits == ("train", "dev", "test")
    assert whole.qrels("test")["q25"] == {"d25": 1, "d24": 0}
    assert len(whole.corpus) == 30
    assert open_dataset("ir_datasets:twofold-toy/test").splits == ("test",)
    with pytest.raises(DataError, match="ir_datasets has no dataset 'twofold-tox'"):
        open_dataset("ir_datasets:twofold-tox")
