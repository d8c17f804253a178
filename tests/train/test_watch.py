"""Around the steps of a member: the log, looks at dev, checkpoints, and going on."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from tests.train.conftest import MakeConfig
from tests.train.setups import Source, make_setup, weights, with_stages
from twofold.config import TrialConfig
from twofold.core.inject import mixtures
from twofold.errors import CheckpointError
from twofold.methods import AfterStep
from twofold.train import state as states
from twofold.train.dev import DevSets
from twofold.train.loop import LoopState, Setup, fit
from twofold.train.watch import MemberWatch


class Script:
    """A dev set whose looks are written beforehand; the last one is repeated."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values, self.looks = list(values), 0

    def look(self, _: Any, tasks: Sequence[str]) -> dict[str, float]:
        assert tuple(tasks) == ("retrieve", "rerank")
        self.looks += 1
        return {"retrieve": self.values[min(self.looks, len(self.values)) - 1], "rerank": 0.5}


def run(
    folder: Path,
    config: TrialConfig,
    *,
    resume: bool = False,
    dev: Script | None = None,
    setup: Setup | None = None,
    until: int | None = None,
    each: Callable[[LoopState], None] = lambda _: None,
) -> tuple[Setup, LoopState]:
    """Trains one member in `folder`; `until` stops as a crash would, after that step."""
    setup = setup or make_setup(config)
    watch = MemberWatch(folder, setup, config, cast(DevSets | None, dev), resume)
    state = watch.start()
    hooks = watch.hooks(lambda _: None)

    def after(now: LoopState, *others: Any) -> None:
        hooks.after_step(now, *others)
        each(now)
        if now.step == until:
            raise InterruptedError

    try:
        fit(setup, state, replace(hooks, after_step=after))
        watch.finish(state)
    except InterruptedError:
        pass
    return setup, state


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def generations(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def assert_equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_logs_every_step_and_keeps_two_generations(make_config: MakeConfig, tmp_path: Path) -> None:
    _, state = run(tmp_path, make_config())
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0].keys() == {"step", "stage", "loss", "norm", "rate", "tokens", "truncated"}
    assert generations(tmp_path) == ["step-000000004", "step-000000006"]
    assert state.log_bytes == (tmp_path / "log.jsonl").stat().st_size


@pytest.mark.parametrize("until", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("method", ["moe_lora", "specialists", "tests.train.mole"])
def test_going_on_is_bit_equal_wherever_it_broke(method: str, until: int, make_config: MakeConfig, tmp_path: Path) -> None:
    """Also across the stages of `mole` (steps 2 and 3 of 6 are their edges), and with a trained backbone."""
    config = make_config(method={"name": method})
    whole, _ = run(tmp_path / "whole", config)
    run(tmp_path / "broken", config, until=until)
    again, _ = run(tmp_path / "broken", config, resume=True)
    assert_equal(weights(again), weights(whole))
    assert (tmp_path / "broken" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_the_same_seed_writes_the_same_log(make_config: MakeConfig, tmp_path: Path) -> None:
    logs = []
    for i in range(3):
        torch.rand(i + 1)  # whatever was drawn before
        run(tmp_path / str(i), make_config())
        logs.append((tmp_path / str(i) / "log.jsonl").read_bytes())
    assert logs[0] == logs[1] == logs[2]
    run(tmp_path / "other", make_config(seed=1))
    assert (tmp_path / "other" / "log.jsonl").read_bytes() != logs[0]


def test_the_log_is_cut_back_to_its_checkpoint(make_config: MakeConfig, tmp_path: Path) -> None:
    run(tmp_path, make_config(), until=3)
    path = tmp_path / "log.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 4, "los')
    watch = MemberWatch(tmp_path, make_setup(make_config()), make_config(), None, resume=True)
    assert watch.start().step == 2
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="shorter than when its checkpoint was written"):
        MemberWatch(tmp_path, make_setup(make_config()), make_config(), None, resume=True).start()
    path.unlink()
    with pytest.raises(CheckpointError, match="shorter"):
        MemberWatch(tmp_path, make_setup(make_config()), make_config(), None, resume=True).start()


def test_a_torn_generation_is_passed_over(make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole, _ = run(tmp_path / "whole", make_config())
    run(tmp_path / "torn", make_config(), until=5)
    newest = tmp_path / "torn" / "checkpoints" / "step-000000004" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    again, _ = run(tmp_path / "torn", make_config(), resume=True)
    assert "going back to step 2" in caplog.text
    assert_equal(weights(again), weights(whole))
    assert (tmp_path / "torn" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_what_would_not_be_the_same_training_is_refused(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    run(tmp_path, config, until=3)

    def complaint(config: TrialConfig = config, source: Source | None = None) -> str:
        with pytest.raises(CheckpointError) as caught:
            MemberWatch(tmp_path, make_setup(config, source=source), config, None, resume=True).start()
        return str(caught.value)

    assert "config was" in complaint(make_config(optim={"lr": 1e-4}))
    assert "precision was ['fp32'" in complaint(make_config(backbone={"precision": "bf16"}))
    assert "data was {'rerank': '000" in complaint(source=Source(sha256="1" * 64))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 7)
        assert "threads was 1 and is 7" in complaint()
    with monkeypatch.context() as patch:
        patch.setattr("twofold.train.watch.weights_sha256", lambda _: "another")
        assert "backbone was '" in complaint()
    with monkeypatch.context() as patch:
        patch.setattr("twofold.train.watch.np.__version__", "0.0")
        assert "versions was" in complaint()
    assert MemberWatch(tmp_path, make_setup(config), config, None, resume=True).start().step == 2


def test_a_full_disk_leaves_the_earlier_generation(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run(tmp_path / "whole", make_config())
    real, calls = states.save_tensors, []

    def full(path: Path, tensors: Any) -> None:
        calls.append(path.name)
        if calls.count("optimiser.safetensors") == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(states, "save_tensors", full)
        with pytest.raises(CheckpointError, match="could not be written: No space left on device"):
            run(tmp_path / "full", make_config())
    assert generations(tmp_path / "full") == ["step-000000002"]
    again, _ = run(tmp_path / "full", make_config(), resume=True)
    assert_equal(weights(again), weights(whole))


def test_early_stopping_keeps_the_best_weights(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(optim={"steps": 20}, dev={"every": 2, "patience": 2})
    at: dict[int, Any] = {}
    setup = make_setup(config)
    script = Script([0.2, 0.6, 0.5, 0.6])
    _, state = run(tmp_path, config, dev=script, setup=setup, each=lambda now: at.update({now.step: weights(setup)}))
    assert (state.step, state.stopped, script.looks) == (8, True, 4)
    assert state.best == pytest.approx(0.55)
    assert_equal(weights(setup), at[4])
    assert not torch.equal(at[8]["rerank.log_scale"], at[4]["rerank.log_scale"])
    looks = [row for row in log(tmp_path) if "dev" in row]
    assert looks[1] == {"step": 4, "dev": {"retrieve": 0.6, "rerank": 0.5}, "mean": 0.55}
    assert generations(tmp_path)[-1] == "step-000000008"
    again, later = run(tmp_path, config, dev=Script([]), resume=True)
    assert later.step == 8
    assert_equal(weights(again), at[4])


def test_without_patience_it_trains_to_the_end_and_takes_the_best(make_config: MakeConfig, tmp_path: Path) -> None:
    config, at = make_config(dev={"every": 4}), {}
    setup = make_setup(config)
    _, state = run(tmp_path, config, dev=Script([0.9, 0.1]), setup=setup, each=lambda now: at.update({now.step: weights(setup)}))
    assert state.step == 6
    assert [row["step"] for row in log(tmp_path) if "dev" in row] == [4, 6]
    assert_equal(weights(setup), at[4])


def test_looks_before_the_last_stage_decide_nothing(make_config: MakeConfig, tmp_path: Path) -> None:
    """A model half made is neither the best one nor a reason to stop."""
    config = make_config(method={"name": "tests.train.mole"}, optim={"steps": 8}, dev={"every": 1, "patience": 1})
    at: dict[int, Any] = {}
    setup = make_setup(config)
    script = Script([0.9, 0.8, 0.7, 0.6, 0.1, 0.3, 0.2])
    _, state = run(tmp_path, config, dev=script, setup=setup, each=lambda now: at.update({now.step: weights(setup)}))
    assert state.step == 7
    assert state.best == pytest.approx(0.4)
    assert_equal(weights(setup), at[6])


def test_best_weights_that_are_gone_are_missed(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(dev={"every": 2})
    run(tmp_path, config, dev=Script([0.3]))
    (tmp_path / "best" / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="best"):
        run(tmp_path, config, dev=Script([0.3]), resume=True)


@pytest.mark.parametrize("router", ["frozen_random", "soft"])
def test_what_a_hook_changes_goes_on_too(router: str, make_config: MakeConfig, tmp_path: Path) -> None:
    """The checkpoint holds all of the mixture, trained by gradients or not."""

    def shift(model: nn.Module, step: int) -> None:
        for layer in mixtures(model):
            for parameter in layer.router.parameters():
                parameter.data.add_(0.01 * step)

    config = make_config(method={"name": "moe_lora", "options": {"router": router}})

    def setup(hook: AfterStep = shift) -> Setup:
        made = make_setup(config)
        return replace(made, member=with_stages(made.member, replace(made.member.stages[0], after_step=hook)))

    whole, _ = run(tmp_path / "whole", config, setup=setup())
    run(tmp_path / "broken", config, setup=setup(), until=3)
    again, _ = run(tmp_path / "broken", config, setup=setup(), resume=True)
    assert_equal(weights(again), weights(whole))


def test_a_fresh_start_is_seeded(make_config: MakeConfig, tmp_path: Path) -> None:
    """For plug-ins that draw: nothing of Twofold's own does."""
    drawn = []
    for i in range(2):
        torch.rand(3 + i)
        MemberWatch(tmp_path / str(i), make_setup(make_config()), make_config(), None, resume=False).start()
        drawn.append(torch.rand(2).tolist())
    assert drawn[0] == drawn[1]
