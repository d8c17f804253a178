"""scripts/scoreboard: every target has an entry, every number comes from a file, and stale files are found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "scoreboard"
IDS = [*(f"Q{i}" for i in range(1, 9)), *(f"S{i}" for i in range(1, 13)), *(f"T{i}" for i in range(1, 11))]
MARKS = "\n".join(f"<!-- {name}:begin -->\nold\n<!-- {name}:end -->\nand" for name in ("results", "further", "study", "targets"))
README = f"Hello\n{MARKS}\nbye\n"
ENVIRONMENT = {
    "cpu": {"model": "Fast CPU", "cores": 2, "flags": []},
    "accelerators": [],
    "commit": "0123456789abcdef",
    "dirty": False,
    "date": "2026-01-02",
}


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), "--root", str(root), *arguments], capture_output=True, text=True, check=False)


def board(root: Path) -> dict[str, dict[str, Any]]:
    done = run(root)
    assert done.returncode == 0, done.stderr
    return {entry["id"]: entry for entry in json.loads((root / "results/scoreboard.json").read_text())}


def put(root: Path, path: str, content: dict[str, Any]) -> None:
    file = root / "results" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def evaluation(
    method: str, dense: float, pipeline: float, *, steps: int = 100, weight: float = 0.5, dataset: str = "scifact"
) -> dict[str, Any]:
    row = {"nDCG@10": 0.5, "R@100": 0.9, "AP": 0.4, "RR": 0.4}
    return {
        "kind": "evaluation",
        "name": method,
        "method": method,
        "train": {"steps": {"retrieve": steps}, "seed": 7, "datasets": ["scifact"], "parameters": {"trainable": 1234567}}
        if steps
        else None,
        "data": {"name": dataset, "split": "test", "queries": 300, "documents": 5183},
        "settings": {"depth": 20, "rerank_weight": weight},
        "rows": {"bm25": row, "dense": row | {"nDCG@10": dense}, "reranked": row, "pipeline": row | {"nDCG@10": pipeline}, "oracle": row},
        "deltas": {"pipeline-dense": {"mean": pipeline - dense, "low": -0.01, "high": 0.03, "p": 0.0002}},
        "environment": ENVIRONMENT,
    }


def test_every_target_has_an_entry_even_without_results(tmp_path: Path) -> None:
    entries = board(tmp_path)
    assert list(entries) == IDS
    for entry in entries.values():
        assert set(entry) == {"id", "what", "value", "target", "met", "source", "hardware", "commit", "date"}
        assert entry["value"] is entry["met"] is entry["source"] is None
        assert entry["what"]
        assert entry["target"]


def test_quality_is_read_from_evaluations(tmp_path: Path) -> None:
    put(tmp_path, "scifact/moe_lora.json", evaluation("moe_lora", 0.70, 0.76))
    put(tmp_path, "scifact/shared_lora.json", evaluation("shared_lora", 0.71, 0.72))
    put(tmp_path, "scifact/specialists.json", evaluation("specialists", 0.80, 0.80))  # two models
    put(tmp_path, "scifact/zero_shot.json", evaluation("zero_shot", 0.90, 0.90, steps=0))  # not trained
    entries = board(tmp_path)
    assert (entries["Q1"]["value"], entries["Q1"]["met"], entries["Q1"]["source"]) == (0.71, False, "results/scifact/shared_lora.json")
    assert (entries["Q2"]["value"], entries["Q2"]["met"], entries["Q2"]["source"]) == (0.76, True, "results/scifact/moe_lora.json")
    assert (entries["Q2"]["hardware"], entries["Q2"]["commit"], entries["Q2"]["date"]) == (
        "Fast CPU, 2 cores",
        "0123456789ab",
        "2026-01-02",
    )
    assert entries["Q3"]["value"] is None


@pytest.mark.parametrize(
    ("dataset", "gain", "weight", "met"),
    [
        ("scifact", 0.01, 0.5, None),  # nothing measured yet on data that was not trained on
        ("scifact", -0.001, 0.5, False),
        ("cosqa", -0.001, 0.5, True),
        ("cosqa", -0.01, 0.5, False),
        ("cosqa", 0, 0.0, None),
    ],
)
def test_reranking_never_hurts(tmp_path: Path, dataset: str, gain: float, weight: float, met: bool | None) -> None:
    put(tmp_path, f"{dataset}/ours.json", evaluation("moe_lora", 0.5, 0.5 + gain, weight=weight, dataset=dataset))
    assert board(tmp_path)["Q5"]["met"] is met


@pytest.mark.parametrize(
    ("id", "value", "met"),
    [
        ("S5", 1.1, True),
        ("S5", 1.3, False),
        ("S6", {"peft_sum": 0.7, "peft_mixed_batch": 0.9, "xlora": 0.5}, True),
        ("S6", {"peft_sum": 0.7}, None),
        ("S6", {"peft_sum": 0.8}, False),
        ("S11", {"fp32_max_abs": 2e-6, "bf16_cosine": 0.9995, "bf16_ndcg_change": 0.0}, True),
        ("T1", 1.0, True),
        ("T5", {"errors": 0, "wrong": 1, "p99_over_p50": 3.0}, False),
    ],
)
def test_stated_values_are_judged_against_their_bounds(tmp_path: Path, id: str, value: Any, met: bool | None) -> None:
    put(tmp_path, "bench/x.json", {"environment": ENVIRONMENT, "scoreboard": [{"id": id, "value": value}]})
    entry = board(tmp_path)[id]
    assert (entry["value"], entry["met"], entry["source"]) == (value, met, "results/bench/x.json")


def test_every_target_that_is_stated_can_be_judged(tmp_path: Path) -> None:
    """A bound that could not be read would fail here."""
    stated = [id for id in IDS if id not in ("Q1", "Q2", "Q3", "Q4", "Q5", "Q6", "Q7", "Q8")]
    put(tmp_path, "bench/x.json", {"environment": ENVIRONMENT, "scoreboard": [{"id": id, "value": {}} for id in stated]})
    entries = board(tmp_path)
    assert all(entries[id]["met"] is None and entries[id]["source"] for id in stated)


def test_released_weights_are_measured_on_what_they_never_saw(tmp_path: Path) -> None:
    gains = {"nfcorpus": (0.02, 0.03), "wikiqa": (0.01, 0.01), "cosqa": (0.03, 0.02)}
    for name, (retrieval, reranking) in gains.items():
        put(tmp_path, f"builtin/zero_shot_{name}.json", evaluation("zero_shot", 0.5, 0.5, steps=0, dataset=name))
        put(tmp_path, f"builtin/{name}.json", evaluation("moe_lora", 0.5 + retrieval, 0.5 + retrieval + reranking, dataset=name))
    put(tmp_path, "builtin/scifact.json", evaluation("moe_lora", 0.1, 0.9))  # it was trained on
    entry = board(tmp_path)["Q6"]
    assert entry["value"] == pytest.approx({"retrieval": 0.01, "reranking": 0.02})
    assert entry["met"] is True
    (tmp_path / "results/builtin/cosqa.json").unlink()
    assert board(tmp_path)["Q6"]["met"] is None, "one of the three is missing"


@pytest.mark.parametrize(("accuracy", "changed", "met"), [(0.91, 0, True), (0.89, 0, False), (0.91, 2, False), (0.91, None, None)])
def test_the_fourth_expert_and_what_it_changed(tmp_path: Path, accuracy: float, changed: int | None, met: bool | None) -> None:
    older = None if changed is None else {"vectors": 10, "scores": 10, "changed": changed}
    content = {"kind": "classification", "data": {"name": "banking77", "split": "test"}, "rows": {"classifier": {"accuracy": accuracy}}}
    put(tmp_path, "classify/banking77.json", {**content, "older": older, "environment": ENVIRONMENT})
    entry = board(tmp_path)["Q8"]
    assert entry["value"]["accuracy"] == accuracy
    assert entry["met"] is met


def test_answers_on_all_test_articles(tmp_path: Path) -> None:
    content = {"kind": "answering", "data": {"name": "squad", "split": "dev"}, "environment": ENVIRONMENT}
    rows = {"passage given": {"f1": 0.5, "exact_match": 0.4}, "end to end": {"f1": 0.1, "exact_match": 0.1}}
    put(tmp_path, "answer/dev.json", {**content, "rows": rows})
    assert board(tmp_path)["Q7"]["value"] is None, "dev is not test"
    put(tmp_path, "answer/squad.json", {**content, "rows": rows, "data": {"name": "squad", "split": "test"}})
    entry = board(tmp_path)["Q7"]
    assert (entry["value"], entry["met"], entry["source"]) == ({"f1": 0.5, "exact_match": 0.4}, True, "results/answer/squad.json")


def test_one_model_against_specialists_is_read_from_the_cells(tmp_path: Path) -> None:
    """Means over three seeds of both tasks; a kind with a task, or a seed, too few is left out."""

    def cell(arm: str, seed: int, backbone: str = "minilm-l6", **rows: float) -> None:
        place = {"arm": arm, "seed": seed, "data": "made", "backbone": backbone, "sweeping": False}
        tests = {"made": {"rows": {row: {"nDCG@10": value} for row, value in rows.items()}}}
        put(
            tmp_path,
            f"studies/a/{backbone}-{arm}-{seed}.json",
            {"kind": "study cell", "cell": place, "tests": tests, "environment": ENVIRONMENT},
        )

    for seed in range(3):
        cell("moe_lora", seed, dense=0.5 + seed / 10, rerank=0.7)
        cell("moe_lora", seed, "other", dense=0.0, rerank=0.0)
        cell("specialist_retrieve", seed, dense=0.5)
        cell("full_retrieve", seed, dense=0.1)
        if seed < 2:
            cell("specialist_rerank", seed, rerank=0.8)
    assert board(tmp_path)["Q4"]["value"] is None
    cell("specialist_rerank", 2, rerank=0.8)
    entry = board(tmp_path)["Q4"]
    assert entry["value"] == {"lora": pytest.approx((0.1 - 0.1) / 2)} and entry["met"] is None and "moe_lora" in entry["source"]


def test_the_newest_file_wins(tmp_path: Path) -> None:
    for name, date, value in (("a", "2026-02-01", 2.0), ("b", "2026-01-01", 3.0)):
        put(tmp_path, f"bench/{name}.json", {"environment": {**ENVIRONMENT, "date": date}, "scoreboard": [{"id": "S10", "value": value}]})
    assert board(tmp_path)["S10"]["value"] == 2.0


def test_readme_tables_and_check(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README)
    put(tmp_path, "scifact/moe_lora.json", evaluation("moe_lora", 0.70, 0.76))
    assert run(tmp_path, "--check").returncode == 1
    assert readme.read_text() == README
    assert run(tmp_path, "--readme", str(readme)).returncode == 0
    text = readme.read_text()
    assert "| [moe_lora](results/scifact/moe_lora.json) | 1,234,567 | 0.700 | 0.900 | 0.500 @20 | 0.500 | 0.760 |" in text
    assert "| 0.760 | +0.060 [-0.010, +0.030] | < .001 |" in text
    assert "| BM25 | – | 0.500 | 0.900 |" in text
    assert "SciFact test, 300 queries, 5,183 documents. Hardware: Fast CPU, 2 cores; seed: 7; commit: 0123456789ab." in text
    assert "| Q2 | SciFact test, retrieve → rerank by one model, nDCG@10 | 0.760 | ≥ .75 | yes |" in text
    assert text.startswith("Hello\n")
    assert text.endswith("bye\n")
    assert run(tmp_path, "--check").returncode == 0
    assert run(tmp_path, "--readme", str(readme)).returncode == 0
    assert readme.read_text() == text
    put(tmp_path, "scifact/moe_lora.json", evaluation("moe_lora", 0.71, 0.76))
    stale = run(tmp_path, "--check")
    assert stale.returncode == 1
    assert "scoreboard.json is stale" in stale.stdout
    assert "README.md is stale" in stale.stdout


@pytest.mark.parametrize("text", ["nothing", README.replace("results:end", "results:ende")])
def test_readme_without_markers(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    done = run(tmp_path, "--readme", str(tmp_path / "README.md"))
    assert done.returncode == 1
    assert "README.md: needs <!-- results:begin -->" in done.stderr


def test_a_broken_result_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text("{\n")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "results/x.json:2: not JSON" in done.stderr
