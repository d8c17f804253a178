"""`index`, `search` and sharded `encode`, end to end on a tiny trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.typed import run
from twofold.errors import CheckpointError, ConfigError, DataError

pytest.importorskip("lancedb")


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "fox.md").write_text("---\nlang: en\n---\n# A red fox\n\nThe fox runs over the dog.\n\n## Query\n\nWhat is it?\n")
    (folder / "dog.txt").write_text("The lazy dog is a document.")
    (folder / "broken.txt").write_bytes(b"line\n\xff")
    return folder


@pytest.fixture(scope="module")
def made(place: Path, documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("made") / "my.index"
    said = run("index", documents, "--to", to, "--model", (place / "model.txt").read_text()).output
    assert f"{to}: 2 added; " in said and f"{documents / 'broken.txt'}:2: not UTF-8" in said and "left out: 1 × not UTF-8" in said
    return to


def test_indexing_again_does_nothing_and_says_so(made: Path, documents: Path) -> None:
    found = json.loads(run("index", documents, "--to", made, "--json").stdout)
    assert (found["added"], found["unchanged"], found["store"]["kind"]) == (0, 2, "lancedb")
    assert found["skipped"] == {"not UTF-8": 1} and found["complaints"][0].startswith(f"{documents / 'broken.txt'}:2:")


def test_what_stays_though_it_cannot_be_read_is_told(model: str, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text("".join(f'{{"_id": "{name}", "text": "a fox"}}\n' for name in "abc"))
    command = ("index", path, "--to", tmp_path / "index", "--model", model, "--store", "exact")
    assert "kept" not in run(*command).stdout
    path.write_text('{"_id": "a", "text": 1}\n{"_id": "b", "text": ""}\n{"_id"\n')
    said = run(*command).stdout
    assert "1 deleted" in said and "kept: 1 documents that cannot be read any more, with their old text" in said
    assert "kept: 1 documents that are not there any more" in said


def search(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("search", *arguments, "--json").stdout)
    return found


def test_search_finds_and_shows_where(made: Path) -> None:
    said = run("search", made, "lazy dog", "-k", "2").stdout
    assert "dog.txt:1" in said and "first stage" in said and "candidates (hybrid)" in said
    found = search(made, "lazy dog", "--mode", "lexical", "--no-rerank")
    assert found["hits"][0]["document"] == "dog.txt" and found["hits"][0]["rerank_score"] is None
    assert search(made, "lazy dog", "--mode", "dense", "--rerank-weight", "1")["hits"][0]["lexical_rank"] is None
    assert len(search(made, "fox", "--fusion", "0.5", "-k", "1", "--depth", "2")["hits"]) == 1


def test_conditions(made: Path) -> None:
    assert {hit["document"] for hit in search(made, "dog", "--where", "type=markdown")["hits"]} == {"fox.md"}
    both = search(made, "dog", "--where", "type=markdown", "--where", "type=text")["hits"]
    assert {hit["document"] for hit in both} == {"fox.md", "dog.txt"}
    assert search(made, "dog", "--where", "lang=en", "--where", "type=text")["hits"] == []
    assert "nothing found with that condition" in run("search", made, "dog", "--where", "lang=fr").stdout


def test_explain_shows_both_stages_and_the_routing(made: Path) -> None:
    said = run("search", made, "lazy dog", "-k", "2", "--explain").stdout
    assert "dense" in said and "lexical" in said and "routing" in said
    found = search(made, "lazy dog", "-k", "2", "--explain")
    assert found["routing"].keys() == found["hits"][0]["routing"].keys() and len(found["routing"]) >= 2


def test_what_cannot_be_is_one_line(made: Path, documents: Path, tmp_path: Path) -> None:
    for arguments, error, said in [
        (("search", made, " "), ConfigError, "empty"),
        (("search", made, "a", "--mode", "sparse"), ConfigError, "use hybrid, dense, lexical"),
        (("search", made, "a", "--where", "lang"), ConfigError, "use KEY=VALUE"),
        (("search", tmp_path, "a"), CheckpointError, "no index; make one with"),
        (("index", "--to", made), ConfigError, "say what to index"),
        (("index", documents, "--to", made, "--model", "builtin"), CheckpointError, "made by another model"),
        (("index", documents / "nowhere", "--to", made), DataError, "no dataset"),
        (("index", documents, "--to", made, "--option", "url"), ConfigError, "use KEY=VALUE"),
        (("encode", "builtin", "--shard", "0"), ConfigError, "--to FOLDER"),
    ]:
        with pytest.raises(error, match=said):
            run(*arguments)


def test_shards_become_an_index(model: str, documents: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    for shard in (1, 0):
        said = run("encode", model, documents, "--shard", shard, "--num-shards", 2, "--to", shards).stdout
        assert f"shard-0000{shard}-of-00002" in said
    assert "there already" in run("encode", model, documents, "--shard", 0, "--num-shards", 2, "--to", shards).stdout
    assert json.loads(run("encode", model, documents, "--shard", 0, "--num-shards", 2, "--to", shards, "--json").stdout)["there"] is True
    assert "2 added" in run("index", "--vectors", shards, "--to", tmp_path / "index", "--store", "exact").stdout
    assert search(tmp_path / "index", "lazy dog", "--mode", "lexical")["hits"]
