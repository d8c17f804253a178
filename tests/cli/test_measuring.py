"""`evaluate`, `compare` and the lists, end to end on a tiny trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.typed import run
from twofold import plugins
from twofold.errors import ConfigError


def test_evaluate_writes_a_result_that_compare_reads(place: Path, model: str, tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    shown = run("evaluate", model, "--data", place / "tiny", "--depth", "5", "--to", files[0], "--runs", tmp_path / "runs")
    assert "pipeline" in shown.stdout and (tmp_path / "runs" / "dense.trec").is_file()
    as_json = run("evaluate", model, "--data", place / "tiny", "--depth", "5", "--to", files[1], "--json")
    assert json.loads(as_json.stdout)["rows"]["dense"] == json.loads(files[0].read_text())["rows"]["dense"]
    compared = json.loads(run("compare", *files, "--json").stdout)
    assert {row["row"] for row in compared["rows"]} >= {"dense", "reranked"}
    assert all(row["gain"]["mean"] == 0 for row in compared["rows"])
    assert "dense" in run("compare", *files).stdout


def test_evaluate_in_another_precision(place: Path, model: str, tmp_path: Path) -> None:
    run("evaluate", model, "--data", place / "tiny", "--depth", "5", "--to", tmp_path / "a.json", "--precision", "bf16")
    assert json.loads((tmp_path / "a.json").read_text())["system"]["members"][0]["precision"] == "bf16"
    with pytest.raises(ConfigError, match="precision 'fp8': use fp32, bf16, bf16-weights or auto"):
        run("evaluate", model, "--data", place / "tiny", "--precision", "fp8")


@pytest.mark.parametrize("family", ["methods", "routers"])
def test_lists_are_the_folders(family: str) -> None:
    assert all(name in run(family).stdout for name in plugins.names(family))


def test_routers_as_json() -> None:
    assert sorted(json.loads(run("routers", "--json").stdout)) == plugins.names("routers")


def test_methods_say_what_they_cost() -> None:
    found = json.loads(run("methods", "shared_lora", "--json").stdout)
    assert list(found) == ["shared_lora"] and found["shared_lora"]["folds"] == {"retrieve": True, "rerank": True}
    shown = run("methods", "shared_lora").stdout
    assert "joint: retrieve + rerank" in shown and f"{found['shared_lora']['extra_flops_per_token']['retrieve']:,}" in shown


def test_doctor_reports_as_json() -> None:
    report = json.loads(run("doctor", "--json").stdout)
    assert report["environment"]["versions"]["torch"]
