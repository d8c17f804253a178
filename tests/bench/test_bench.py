"""The benchmarks run, at tiny sizes, and say what they are to say; nothing is asserted about time."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("peft")
from bench import _measure, edges, engines, memory, mixture, packed, query, rerank, train_speed

ROOT = Path(__file__).parents[2]
RUN = runpy.run_path(str(ROOT / "bench" / "run"))
pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers


def sound(content: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """A result as it should be, and printed as it is."""
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(content))
    assert next(iter(content)) == "ratios"
    assert content["ratios"]
    assert all(each["low"] <= each["value"] <= each["high"] for each in content["ratios"].values())
    assert content["scoreboard"] == []  # quick
    assert content["environment"]["threads"] == 1
    return content


def test_mixture(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    content = sound(mixture.main(small), capsys)
    assert {
        "mixture / bare, fp32, equal",
        "folded / bare, fp32, mixed",
        "mixture / xlora, fp32, equal",
        "products / bare, fp32, equal",
    } <= set(content["ratios"])


def test_packed_gives_the_same_vectors_as_sentence_transformers(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    content = sound(packed.main(small), capsys)
    assert content["equality"]["fp32_max_abs"] < 1e-5
    assert content["useful_tokens_per_second"]["mixed_64"]["padding"] > 1
    assert content["useful_tokens_per_second"]["equal_lengths"]["padding"] == 1


def test_edges(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    content = sound(edges.main(small), capsys)
    assert {"one_query", "long_1", "long_8"} < set(content["useful_tokens_per_second"])


def test_query(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sound(query.main(small), capsys)


def test_rerank(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sound(rerank.main(small), capsys)


def test_engines_give_the_same_vectors(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for needed in ("onnxruntime", "onnxscript"):
        pytest.importorskip(needed)
    content = sound(engines.main(small), capsys)
    assert content["equality"]["fp32_max_abs"] < 1e-5


def test_training_starts_from_the_same_loss_on_both_sides(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    content = sound(train_speed.main(small), capsys)
    assert content["loss_difference"]["fp32"] < 1e-4


def test_memory(small: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "measured", memory.child)  # in this process, which is quick
    content = sound(memory.main(small), capsys)
    assert content["ratios"]["weights: one model / two"]["value"] < 1


def test_memory_reads_what_its_child_says(small: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def fake(command: list[str], **_: Any) -> SimpleNamespace:
        seen.append(command)
        return SimpleNamespace(returncode=0, stdout='noise\n{"weights": 1.0}\n', stderr="")

    monkeypatch.setattr(memory.subprocess, "run", fake)
    assert memory.measured("two", _measure.options("", small, 1), tmp_path) == {"weights": 1.0}
    assert seen[0][1:6] == ["-m", "bench.memory", "--child", "two", str(tmp_path)]


def test_one_thread_is_put_back() -> None:
    before = torch.get_num_threads()
    with _measure.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_interleaved_begins_each_round_with_another_and_pairs_by_round() -> None:
    calls: list[str] = []
    times = _measure.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b", "a", "b", "b", "a"]
    times.seconds.update(a=[2.0, 30.0, 4.0], b=[1.0, 10.0, 4.0])
    assert times.ratio("a", "b") == {"value": 2.0, "low": 1.0, "high": 3.0, "interval": [1.0, 3.0]}


def test_the_interval_is_of_the_median() -> None:
    low, high = _measure.of_the_median([1.0] * 20 + [9.0])
    assert low == high == 1.0  # one bad round moves no median
    low, high = _measure.of_the_median([1.0, 2.0, 3.0, 4.0, 5.0])
    assert 1.0 <= low < 3.0 < high <= 5.0


def test_texts_are_the_same_every_time_and_repeat_when_short(small: list[str]) -> None:
    dataset = small[-1]
    assert _measure.documents(dataset, 3) == _measure.documents(dataset, 3)
    assert len(_measure.documents(dataset, 70)) == 70
    assert min(len(text.split()) for text in _measure.documents(dataset, 4, words=40)) >= 40
    with pytest.raises(SystemExit, match="no text of 900 words"):
        _measure.documents(dataset, 1, words=900)


def test_run_knows_every_script() -> None:
    scripts = {path.stem for path in (ROOT / "bench").glob("[a-z]*.py")}
    assert {*RUN["SCRIPTS"], *RUN["APART"]} == scripts


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "run"), "--root", str(root), *arguments], capture_output=True, text=True, check=False
    )


def test_run_renders_the_page_from_results_alone(small: list[str], tmp_path: Path) -> None:
    chosen = _measure.options("", small[1:], 1)  # not quick: such a result counts
    ratios = {"mixture / bare": {"value": 1.111, "low": 1.0, "high": 1.25}}
    content = _measure.result("mixture", "Title.\n\nMore of it.", ratios, [("S5", 1.111)], chosen, sizes={"equal": [12, 128]})
    file = tmp_path / "results" / "bench" / "mixture.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    assert run(tmp_path, "--check").returncode == 1
    assert run(tmp_path, "--render").returncode == 0
    page = (tmp_path / "docs" / "performance.md").read_text()
    assert "| S5 | " in page
    assert "| 1.111 | ≤ 1.18 | yes | [mixture](../results/bench/mixture.json) |" in page
    assert "| mixture / bare | 1.11 | 1.00 – 1.25 |" in page
    assert "| equal | 12 × 128 |" in page
    assert run(tmp_path, "--check").returncode == 0
    assert "no benchmark 'nonsense'" in run(tmp_path, "nonsense").stderr


def test_the_committed_page_is_what_the_committed_results_say() -> None:
    done = run(ROOT, "--check")
    assert done.returncode == 0, done.stdout
