"""Several processes train what one process would on all their examples."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.train.children import Children, wait_for
from tests.train.conftest import MakeConfig


@pytest.mark.parametrize("method", ["specialists", "hard_lora", "moe_lora", "pcgrad", "famo", "smora", "dr_lora"])
def test_two_processes_are_one_of_twice_the_batch(method: str, children: Children, make_config: MakeConfig, tmp_path: Path) -> None:
    """Gloo on the CPU. The reranking head takes no part in retrieval, nor one task's expert in the other task."""
    options = {"method": {"name": method}, "optim": {"steps": 3, "lr": 1e-3}}
    rerank = {"options": {"head": "both"}, "negatives": 2}
    twice = make_config(**options, tasks={"retrieve": {"batch": 4}, "rerank": {"batch": 2, **rerank}})
    alone = make_config(**options, tasks={"retrieve": {"batch": 8}, "rerank": {"batch": 4, **rerank}})
    assert children.run(twice, tmp_path / "two" / "trial", processes=2) == [[0, ""], [0, ""]]
    assert children.run(alone, tmp_path / "one" / "trial") == [[0, ""]]
    for log in sorted((tmp_path / "one").glob("trial/members/*/log.jsonl")):
        rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (log, Path(str(log).replace("/one/", "/two/")))]
        for one, two in zip(*rows, strict=True):
            assert two["tokens"] == one["tokens"]
            for key in ("loss", "norm", "rate"):
                assert two[key] == pytest.approx(one[key], abs=1e-5, rel=1e-5)
    found = sorted((tmp_path / "one").glob("trial/model/**/*.safetensors"))
    assert found
    for path in found:
        want, got = load_file(path), load_file(Path(str(path).replace("/one/", "/two/")))
        assert want.keys() == got.keys()
        for name in want:
            assert (want[name] - got[name]).abs().max() <= 1e-5, name


def test_one_asked_to_stop_stops_all(children: Children, make_config: MakeConfig, tmp_path: Path) -> None:
    """They agree on the step after which they stop, save once, and go on together."""
    config, folder = make_config(optim={"steps": 30}), tmp_path / "trial"
    log = folder / "members" / "unified" / "log.jsonl"

    def ask_the_second(pids: list[int]) -> None:
        assert wait_for(lambda: log.exists() and len(log.read_bytes().splitlines()) >= 3)
        os.kill(pids[1], signal.SIGTERM)

    (first, words), (second, more) = children.run(config, folder, ask_the_second, processes=2)
    assert (first, second) == (1, 1)
    assert "stopped by a signal to another process after step" in words
    assert "stopped by SIGTERM after step" in more
    stopped_at = len(log.read_bytes().splitlines())
    assert (folder / "members" / "unified" / "checkpoints" / f"step-{stopped_at:09d}" / "manifest.json").is_file()
    assert children.run(config, folder, processes=2, resume=True) == [[0, ""], [0, ""]]
    assert children.run(config, tmp_path / "whole", processes=2) == [[0, ""], [0, ""]]
    assert log.read_bytes() == Path(str(log).replace(str(folder), str(tmp_path / "whole"))).read_bytes()
