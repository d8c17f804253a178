"""The loop: what a step carries, what it clips, how stages follow one another, and how it stops."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_trial import stirred
from tests.train.conftest import MakeConfig
from tests.train.setups import Notes, Source, make_setup, weights, with_stages
from twofold.errors import TrainingStopped
from twofold.methods import Companion, Gradients, pcgrad
from twofold.tasks.retrieve import RetrieveTask
from twofold.train import loop
from twofold.train.loop import LoopState, Progress, Setup, fit, sum_gradients

BOTH = ("retrieve", "rerank")


def test_every_step_carries_one_batch_of_every_task(make_config: MakeConfig) -> None:
    source, notes, seen = Source(), Notes(), []
    setup = make_setup(make_config(seed=3, optim={"steps": 3}), source=source)
    hooks = replace(notes.hooks(), progress=seen.append)
    state = fit(setup, LoopState(), hooks)
    assert source.asked == [
        (task, step, *sizes, 3, 0, 1) for step in range(3) for task, sizes in (("retrieve", (4, 1)), ("rerank", (2, 2)))
    ]
    assert [report.step for report in notes.reports] == [1, 2, 3]
    assert all(list(report.loss) == list(BOTH) for report in notes.reports)
    assert state.step == 3
    assert state.tokens == sum(report.tokens for report in notes.reports) > 0
    assert not setup.model.training
    assert [(now.step, now.steps) for now in seen] == [(1, 3), (2, 3), (3, 3)]
    assert notes.resumed == ["joint"]
    assert notes.saved == []


def test_pace_and_time_left() -> None:
    now = Progress(step=5, steps=20, tokens=1000, seconds=10.0, report=None)  # type: ignore[arg-type]
    assert now.tokens_per_second == 100
    assert now.seconds_left == 30


def test_gradients_are_clipped_by_group(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each expert by itself: a loud one leaves a quiet one's gradient as it is."""
    norms: list[dict[str, float]] = []
    real = loop.make_optimiser

    def listening(*arguments: Any) -> torch.optim.AdamW:
        optimiser = real(*arguments)

        def note(*_: Any) -> None:
            norms.append(
                {group["name"]: float(torch.cat([p.grad.flatten() for p in group["params"]]).norm()) for group in optimiser.param_groups}
            )

        optimiser.register_step_pre_hook(note)
        return optimiser

    monkeypatch.setattr(loop, "make_optimiser", listening)
    tasks = {"rerank": {"batch": 2, "weight": 1e-3}}
    setup = make_setup(make_config(method={"name": "hard_lora"}, optim={"steps": 1, "clip": 0.25}, tasks=tasks))
    notes = Notes()
    fit(setup, LoopState(), notes.hooks())
    before, (after,) = notes.reports[0].norm, norms
    assert before["expert:embedding"] > 0.25
    assert after["expert:embedding"] == pytest.approx(0.25, rel=1e-4)
    assert 0 < before["expert:reranking"] < 0.25
    assert after["expert:reranking"] == pytest.approx(before["expert:reranking"])


@pytest.mark.parametrize("cached", [False, True])
def test_a_task_that_reaches_nothing_that_learns_tells_its_loss_and_moves_nothing(cached: bool, make_config: MakeConfig) -> None:
    """All experts frozen: reranking has its head, retrieval has nothing."""
    options = {"shared": 2, "frozen": ["embedding", "reranking", "shared"]}
    tasks = {"retrieve": {"batch": 4, "options": {"cache_tokens": 1 if cached else 16384}}, "rerank": {"batch": 2}}
    setup = make_setup(make_config(method={"name": "hard_lora", "options": options}, optim={"steps": 2}, tasks=tasks))
    before, notes = weights(setup), Notes()
    fit(setup, LoopState(), notes.hooks())
    assert all(report.loss["retrieve"] > 0 for report in notes.reports)
    moved = {name for name, value in weights(setup).items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("rerank.") for name in moved)


def test_rates_follow_warm_up_and_schedule_by_part(make_config: MakeConfig) -> None:
    notes = Notes()
    setup = make_setup(make_config(optim={"steps": 5, "lr": 1e-3, "lr_router": 2e-3, "lr_heads": 4e-3, "warmup": 0.4}))
    fit(setup, LoopState(), notes.hooks())
    factors = [0.5, 1.0, 1.0, 2 / 3, 1 / 3]
    for group, rate in {"expert:shared": 1e-3, "router": 2e-3, "head:rerank": 4e-3}.items():
        assert [report.rate[group] for report in notes.reports] == pytest.approx([factor * rate for factor in factors])


def test_stages_follow_one_another_and_leave_the_others_weights(make_config: MakeConfig) -> None:
    """MOLE: a frozen expert is bit-identical after others have trained; each stage has its own rates from the start."""
    setup = make_setup(make_config(method={"name": "tests.train.mole"}, optim={"steps": 8, "warmup": 0.0}))
    start = weights(setup)
    snapshots: dict[int, Any] = {}
    notes = Notes(each=lambda state: snapshots.update({state.step: weights(setup)}))
    fit(setup, LoopState(), notes.hooks())
    assert [report.stage for report in notes.reports] == ["retrieve"] * 2 + ["rerank"] * 2 + ["mix"] * 4
    assert [set(report.loss) for report in notes.reports] == [{"retrieve"}] * 2 + [{"rerank"}] * 2 + [set(BOTH)] * 4
    assert notes.reports[4].rate == {"router": pytest.approx(5e-3)}

    def moved(before: Any, after: Any) -> set[str]:
        groups = setup.model.groups()
        return {group for group, members in groups.items() for name, _ in members if not torch.equal(before[name], after[name])}

    assert moved(start, snapshots[2]) == {"expert:embedding"}
    assert moved(snapshots[2], snapshots[4]) == {"expert:reranking", "head:rerank"}
    assert moved(snapshots[4], snapshots[8]) == {"router"}


def test_a_stage_can_combine_gradients(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Sequence[Gradients]] = []

    def listening(given: Sequence[Gradients]) -> dict[str, Tensor]:
        kept.append([{name: gradient.clone() for name, gradient in each.items()} for each in given])
        return pcgrad.combine(given)

    setup = make_setup(make_config(method={"name": "pcgrad"}, optim={"steps": 3}))
    stage = replace(setup.member.stages[0], combine=listening)
    start, notes = weights(setup), Notes()
    fit(replace(setup, member=with_stages(setup.member, stage)), LoopState(), notes.hooks())
    assert len(kept) == 3
    (retrieve, rerank), names = kept[0], {name for name, _ in setup.model.groups()["expert:shared"]}
    assert names == retrieve.keys()
    assert {name.partition(".")[0] for name in rerank.keys() - names} == {"rerank"}
    assert all(not torch.equal(start[name], weights(setup)[name]) for name in rerank)


def test_combining_by_a_sum_is_training_as_always(make_config: MakeConfig) -> None:
    def added(kept: Sequence[Gradients]) -> dict[str, Tensor]:
        first, second = kept
        return {name: first[name] + gradient if name in first else gradient for name, gradient in second.items()}

    config = make_config(method={"name": "pcgrad"})
    results = []
    for combine in (None, added):
        setup = make_setup(config)
        stage = replace(setup.member.stages[0], combine=combine)
        fit(replace(setup, member=with_stages(setup.member, stage)), LoopState(), Notes().hooks())
        results.append(weights(setup))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_companion_goes_along_with_its_stage(make_config: MakeConfig) -> None:
    """It is made when the stage begins, counts the stage's steps, sees every pass, losses and gradients, and can look again."""
    heard: list[Any] = []

    class Listening(Companion):
        combines = True

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            heard.append((self.stage.name, self.steps))

        def auxiliary(self, task: str) -> Any:
            return lambda routings: (heard.append((task, len(routings))), torch.zeros(()))[1]

        def combine(self, gradients: Any, losses: Any) -> dict[str, Tensor]:
            heard.append((sorted(gradients), sorted(losses)))
            return {name: gradient for each in gradients.values() for name, gradient in each.items()}

        def after_step(self, done: int, again: Any) -> None:
            heard.append((done, again()))

    setup, notes = make_setup(make_config(optim={"steps": 4})), Notes()
    first, second = (replace(setup.member.stages[0], name=name, companion=Listening) for name in ("first", "second"))
    fit(replace(setup, member=with_stages(setup.member, first, second)), LoopState(), notes.hooks())
    one_step = [("retrieve", 12), ("retrieve", 12), ("rerank", 12), (["rerank", "retrieve"], ["rerank", "retrieve"])]
    assert [each for each in heard if not isinstance(each[1], dict)] == [
        *(("first", 2), *one_step, *one_step),
        *(("second", 2), *one_step, *one_step),
    ]
    looks = [each for each in heard if isinstance(each[1], dict)]
    assert [done for done, _ in looks] == [1, 2, 1, 2]
    assert all(losses.keys() == set(BOTH) for _, losses in looks)
    assert [losses != report.loss for (_, losses), report in zip(looks, notes.reports, strict=True)] == [True] * 4


def test_after_step_sees_every_step_and_may_change_the_model(make_config: MakeConfig) -> None:
    setup, seen = make_setup(make_config(optim={"steps": 3})), []

    def grow(model: nn.Module, step: int) -> None:
        seen.append(step)
        dict(model.named_modules())["tasks.rerank"].log_scale.data.fill_(float(step))

    stage = replace(setup.member.stages[0], after_step=grow)
    fit(replace(setup, member=with_stages(setup.member, stage)), LoopState(), Notes().hooks())
    assert seen == [1, 2, 3]
    assert float(weights(setup)["rerank.log_scale"]) == 3


def test_an_auxiliary_loss_reaches_the_router(make_config: MakeConfig) -> None:
    def spread(routings: Any) -> Tensor:
        return torch.stack([(routing.weight - 1).square().mean() for routing in routings.values()]).mean() * 1e4

    norms = []
    for auxiliary in (None, spread):
        setup = make_setup(make_config(optim={"steps": 1}))
        stage, notes = replace(setup.member.stages[0], auxiliary=auxiliary), Notes()
        fit(replace(setup, member=with_stages(setup.member, stage)), LoopState(), notes.hooks())
        norms.append(notes.reports[0].norm["router"])
    assert norms[0] == 0  # at the start every B is zero, so routing makes no difference
    assert norms[1] > 0


def test_gradient_checkpointing_changes_nothing(make_config: MakeConfig) -> None:
    """Queries, documents and pairs go through the model before one backward: each recomputation sees its own pass."""
    results = []
    for on in (False, True):
        setup = make_setup(make_config(optim={"steps": 2}))
        stirred(setup.model)
        setup.model.backbone.gradient_checkpointing(on)
        notes = Notes()
        fit(setup, LoopState(), notes.hooks())
        results.append((notes.reports, weights(setup)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(results[0][1][name], value) for name, value in results[1][1].items())


def test_going_on_in_the_middle_skips_what_is_done(make_config: MakeConfig) -> None:
    source, notes = Source(), Notes()
    setup = make_setup(make_config(method={"name": "tests.train.mole"}, optim={"steps": 8}), source=source)
    state = fit(setup, LoopState(step=3), notes.hooks())
    assert notes.resumed == ["rerank", "mix"]
    assert [call[:2] for call in source.asked][:3] == [("rerank", 3), ("retrieve", 4), ("rerank", 4)]
    assert state.step == 8
    assert fit(setup, LoopState(step=8), notes.hooks()).step == 8
    assert fit(setup, LoopState(step=5, stopped=True), notes.hooks()).step == 5


class Pair:
    """An accelerator of two processes, of which the other one brings `theirs`."""

    num_processes, device = 2, torch.device("cpu")

    def __init__(self, theirs: Tensor) -> None:
        self.theirs = theirs

    def reduce(self, own: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        return own + self.theirs


def test_gradients_of_processes_are_added_and_none_is_missed() -> None:
    """Ours, theirs, nobody's, and one that is not trained."""
    both, ours, theirs, nobody, frozen = (nn.Parameter(torch.zeros(2)) for _ in range(5))
    both.grad, ours.grad = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    frozen.requires_grad_(False)
    brought = torch.tensor([1.0, 0, 1, 0, *(10.0, 20), *(0, 0), *(5, 6), *(0, 0)])
    sum_gradients([both, ours, theirs, nobody, frozen], Pair(brought))  # type: ignore[arg-type]
    found = [None if p.grad is None else p.grad.tolist() for p in (both, ours, theirs, nobody, frozen)]
    assert found == [[11, 22], [3, 4], [5, 6], None, None]


def broken(setup: Setup, monkeypatch: pytest.MonkeyPatch, harm: Any) -> None:
    """From the second step on, retrieval's loss is harmed."""
    real, calls = RetrieveTask.loss, []

    def loss(self: RetrieveTask, *arguments: Any) -> Tensor:
        calls.append(1)
        good = real(self, *arguments)
        return harm(good) if len(calls) > 1 else good

    monkeypatch.setattr(RetrieveTask, "loss", loss)


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda loss: loss * float("nan"), "step 2: the retrieve loss is nan; lower optim.lr"),
        (lambda loss: loss + float("inf"), "step 2: the retrieve loss is inf"),
        (lambda loss: loss + (loss - loss).abs().sqrt(), "step 2: the gradient of .* is not finite"),
    ],
)
def test_what_is_not_a_number_stops_before_it_does_harm(
    harm: Any, complaint: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, after_one = make_setup(make_config()), {}
    broken(setup, monkeypatch, harm)
    notes = Notes(each=lambda _: after_one.update(weights(setup)))
    with pytest.raises(TrainingStopped, match=complaint):
        fit(setup, LoopState(), notes.hooks())
    assert len(notes.reports) == 1
    assert all(torch.equal(after_one[name], value) for name, value in weights(setup).items())
    assert not setup.model.training


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_finishes_the_step_and_saves(number: signal.Signals, make_config: MakeConfig) -> None:
    before = signal.getsignal(number)
    notes = Notes(each=lambda state: os.kill(os.getpid(), number) if state.step == 2 else None)
    with pytest.raises(TrainingStopped, match=f"stopped by {number.name} after step 2"):
        fit(make_setup(make_config()), LoopState(), notes.hooks())
    assert notes.saved == [2]
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_it_at_once(make_config: MakeConfig) -> None:
    def twice(_: LoopState) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    notes = Notes(each=twice)
    with pytest.raises(KeyboardInterrupt):
        fit(make_setup(make_config()), LoopState(), notes.hooks())
    assert notes.saved == []


def test_it_trains_beside_the_main_thread(make_config: MakeConfig) -> None:
    setup, notes = make_setup(make_config(optim={"steps": 1})), Notes()
    thread = threading.Thread(target=fit, args=(setup, LoopState(), notes.hooks()))
    thread.start()
    thread.join()
    assert len(notes.reports) == 1
