"""What is written comes back bit for bit, or is refused by name."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from twofold.errors import CheckpointError
from twofold.train.loop import LoopState
from twofold.train.state import OPTIMISER, WEIGHTS, optimiser_tensors, read_state, restore_optimiser, restore_weights, write_state

MATCH = {"config": "abc", "threads": 2, "data": {"retrieve": "1", "rerank": "2"}}
STATE = LoopState(step=7, best=0.25, stale=1, tokens=99, log_bytes=1234)


def parameters() -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(3, 2, generator=draw)) for name in ("first", "second.part")}


def stepped(own: dict[str, nn.Parameter]) -> torch.optim.AdamW:
    optimiser = torch.optim.AdamW(own.values(), lr=0.1)
    sum(p.square().sum() for p in own.values()).backward()  # type: ignore[union-attr]
    optimiser.step()
    return optimiser


def test_everything_comes_back(tmp_path: Path) -> None:
    own = parameters()
    optimiser = stepped(own)
    write_state(tmp_path, own, optimiser_tensors(own, optimiser), STATE, MATCH)
    draws = [torch.rand(2).tolist(), random.random(), np.random.rand()]
    torch.rand(5), random.random(), np.random.rand()
    twin = parameters()
    assert read_state(tmp_path, twin, MATCH) == STATE
    assert [torch.rand(2).tolist(), random.random(), np.random.rand()] == draws
    assert all(torch.equal(own[name], twin[name]) for name in own)
    other = torch.optim.AdamW(twin.values(), lr=0.1)
    restore_optimiser(tmp_path, twin, other)
    for (a, b), which in zip(zip(own.values(), twin.values(), strict=True), own, strict=True):
        for key, value in optimiser.state[a].items():
            assert torch.equal(value, other.state[b][key]), (which, key)


def test_a_fresh_state_comes_back_too(tmp_path: Path) -> None:
    write_state(tmp_path, parameters(), {}, LoopState(), {})
    assert read_state(tmp_path, parameters(), {}) == LoopState()


@pytest.mark.parametrize(("saved", "seen"), [(1, 2), (2, 1), (2, 2), (0, 1), (1, 0)])
def test_random_states_come_back_to_the_devices_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: int, seen: int
) -> None:
    states, back = [torch.Generator().manual_seed(i).get_state() for i in range(saved)], dict[int, torch.Tensor]()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: saved > 0)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    write_state(tmp_path, parameters(), {}, LoopState(), {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, i: back.__setitem__(i, state))
    assert read_state(tmp_path, parameters(), {}) == LoopState()
    assert back.keys() == set(range(min(saved, seen))) and all(torch.equal(state, states[i]) for i, state in back.items())


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("config", "abd", "config was 'abc' and is 'abd'"),
        ("threads", 1, "threads was 2 and is 1"),
        ("data", {"retrieve": "1", "rerank": "3"}, "data was .*'rerank': '2'.* and is .*'rerank': '3'"),
    ],
)
def test_what_must_match_is_named(tmp_path: Path, key: str, value: object, complaint: str) -> None:
    own = parameters()
    write_state(tmp_path, own, {}, STATE, MATCH)
    before = {name: p.detach().clone() for name, p in own.items()}
    with pytest.raises(CheckpointError, match=complaint):
        read_state(tmp_path, own, {**MATCH, key: value})
    with pytest.raises(CheckpointError, match="threads was 2 and is None"):
        read_state(tmp_path, own, {name: value for name, value in MATCH.items() if name != "threads"})
    assert all(torch.equal(own[name], before[name]) for name in own)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    own = parameters()
    write_state(tmp_path, own, {}, STATE, MATCH)
    with pytest.raises(CheckpointError, match="holds other weights than this model: second.part"):
        restore_weights(tmp_path / WEIGHTS, {"first": own["first"]})
    with pytest.raises(CheckpointError, match="first"):
        restore_weights(tmp_path / WEIGHTS, {**own, "first": torch.zeros(2, 2)})


def test_an_optimiser_state_for_nobody_is_refused(tmp_path: Path) -> None:
    own = parameters()
    write_state(tmp_path, own, optimiser_tensors(own, stepped(own)), STATE, MATCH)
    assert (tmp_path / OPTIMISER).is_file()
    with pytest.raises(CheckpointError, match="'second.part' is not trained here"):
        restore_optimiser(tmp_path, {"first": own["first"]}, torch.optim.AdamW([own["first"]]))


def test_nothing_bad_is_saved(tmp_path: Path) -> None:
    own = parameters()
    own["first"].data[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="'first' has values that are not finite"):
        write_state(tmp_path, own, {}, STATE, MATCH)
