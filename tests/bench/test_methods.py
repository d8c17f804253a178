"""bench.methods trains and measures what it is given, goes on where it was stopped, and renders nothing but its results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench import methods
from tests.tiny_trial import tiny_config, write_backbone, write_beir
from twofold.data.sources import open_dataset

ROOT = Path(__file__).parents[2]
METHODS = {"shared_lora": {"rank": 4}, "moe_lora": {"rank": 4}, "specialists": {"form": "full"}, "zero_shot": {}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with configs, and the options to run them; done once."""
    folder = tmp_path_factory.mktemp("methods")
    backbone, data = write_backbone(folder / "backbone"), write_beir(folder / "beir")
    (folder / "configs").mkdir()
    for name, options in METHODS.items():
        config = tiny_config(backbone, data, name=f"methods-{name}", method={"name": name, "options": options}, optim={"steps": 3})
        (folder / "configs" / f"{name}.toml").write_text(config.to_toml())
    given = ["--configs", str(folder / "configs"), "--data", str(data), "--trials", str(folder / "trials")]
    given += ["--results", str(folder / "results"), "--page", str(folder / "methods.md"), "--rounds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "ENCODER", [])
        patch.setattr(methods, "footprint", lambda place: 10.0 if (place / "config.json").is_file() else -1.0)  # a process each: slow
        patch.setenv("TWOFOLD_CACHE", str(folder / "cache"))
        assert methods.main(given) == 0
    return folder, given


def test_rows_say_what_each_method_reached_and_cost(made: tuple[Path, list[str]]) -> None:
    folder, _ = made
    rows = json.loads((folder / "results" / "scifact.json").read_text())["rows"]
    assert set(rows) == set(METHODS)
    assert {name: row["folds"]["rerank"] for name, row in rows.items()} == {
        "shared_lora": True,
        "moe_lora": False,
        "specialists": None,
        "zero_shot": None,
    }
    assert rows["specialists"]["megabytes"] == 20 and rows["shared_lora"]["megabytes"] == 10
    assert rows["zero_shot"]["train"] is None and rows["zero_shot"]["tokens_per_second"] is None
    trained = [rows[name]["train"] for name in METHODS if name != "zero_shot"]
    assert all(each["steps"] == {"retrieve": 3, "rerank": 3} and each["data"] == trained[0]["data"] for each in trained)
    assert all(rows[name]["tokens_per_second"] > 0 for name in METHODS if name != "zero_shot")
    assert len({row["data"]["fingerprint"] for row in rows.values()}) == 1
    assert all(0 <= value <= 1 for row in rows.values() for value in row["nDCG@10"].values())


def test_what_is_there_is_not_made_again(made: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, given = made
    monkeypatch.setattr(methods, "ENCODER", [])
    monkeypatch.setattr(methods, "row", lambda *_: pytest.fail("made again"))
    before = (folder / "results" / "scifact.json").read_bytes()
    assert methods.main(given) == 0 and (folder / "results" / "scifact.json").read_bytes() == before


def test_a_row_that_fails_is_told_and_the_others_are_made(
    made: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, given = made
    monkeypatch.setattr(methods, "ENCODER", ["optim.stepz=1"])
    assert methods.main([*given, "--only", "moe_lora"]) == 1
    assert "moe_lora: ConfigError" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no config 'moe_lore'"):
        methods.main([*given, "--only", "moe_lore"])


def test_the_page_holds_the_results_numbers(made: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, given = made
    rows = json.loads((folder / "results" / "scifact.json").read_text())["rows"]
    page = (folder / "methods.md").read_text()
    for name, row in rows.items():
        (line,) = re.findall(rf"^\| \[{name}\].*$", page, flags=re.M)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:4] == [f"{row['nDCG@10'][key]:.3f}" for key in ("dense", "bm25_reranked", "pipeline")]
    assert methods.main([*given, "--check"]) == 0
    (folder / "methods.md").write_text(page.replace("yes", "maybe"))
    assert methods.main([*given, "--check"]) == 1 and "stale" in capsys.readouterr().out
    (folder / "methods.md").write_text(page)


def test_the_sample_is_the_same_everywhere(made: tuple[Path, list[str]]) -> None:
    """Every row measures the same queries and documents, by the dataset's own choice of them."""
    dataset = open_dataset(made[0] / "beir")
    one, two = (dataset.subset(documents=20, queries=10) for _ in range(2))
    assert one.fingerprint == two.fingerprint and list(one.texts) == list(two.texts)


@pytest.mark.skipif(not (ROOT / "results" / "methods" / "scifact.json").is_file(), reason="no committed result")
def test_the_committed_page_is_as_the_committed_results_say() -> None:
    assert methods.main(["--check"]) == 0
    rows = json.loads((ROOT / "results" / "methods" / "scifact.json").read_text())["rows"]
    assert set(rows) == {path.stem for path in (ROOT / "configs" / "methods").glob("*.toml")}
