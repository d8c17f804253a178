"""Prototypes from what each expert was trained on, and experts that are missing at random."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_trial import tiny_examples
from twofold.core.inject import mixtures
from twofold.methods._changes import mean_input
from twofold.methods.ramole import build, routers
from twofold.model.unified import UnifiedModel
from twofold.records import Example

TASKS = ("retrieve", "rerank")


def batches(task: str, step: int) -> list[Example]:
    return tiny_examples(3, seed=step + 10 * TASKS.index(task))


def test_an_experts_prototype_is_the_mean_input_of_the_tasks_that_used_it(specialists: UnifiedModel) -> None:
    mean = {task: mean_input(specialists, batches, task, 2) for task in TASKS}
    (member,) = build(tasks=TASKS, batches=2).members
    assert member.before is not None
    member.before(specialists, batches)
    first = routers(specialists)[0]
    for expert, want in (
        ("embedding", mean["retrieve"]),
        ("reranking", mean["rerank"]),
        ("shared", (mean["retrieve"] + mean["rerank"]) / 2),
    ):
        torch.testing.assert_close(first.get_buffer(f"prototype>{expert}"), want)
    assert not torch.allclose(mean["retrieve"], mean["rerank"])


def test_an_expert_of_no_task_of_the_trial_has_none(specialists: UnifiedModel) -> None:
    (member,) = build(tasks=("retrieve",), batches=1).members
    assert member.before is not None
    member.before(specialists, batches)
    known = {name: bool(routers(specialists)[0].get_buffer(f"prototype>{name}").any()) for name in ("embedding", "reranking", "shared")}
    assert known == {"embedding": True, "reranking": False, "shared": True}


def test_the_choice_is_one_for_all_layers(specialists: UnifiedModel) -> None:
    (member,) = build(tasks=TASKS, k=1, batches=2).members
    assert member.before is not None
    member.before(specialists, batches)
    chosen = [(routing.weight > 0).flatten(0, -2) for routing in specialists.routings(texts=["ba du", "fe gi ho"]).values()]
    assert len(chosen) == len(list(mixtures(specialists)))
    assert all(torch.equal(each, chosen[0]) for each in chosen)
    assert (chosen[0].sum(-1) == 1).all()


def test_experts_are_missing_in_all_layers_alike(specialists: UnifiedModel) -> None:
    (member,) = build(tasks=TASKS, drop=0.5, batches=1).members
    (stage,) = member.stages
    assert stage.trains == ("router",)
    assert stage.after_step is not None and member.before is not None
    member.before(specialists, batches)
    draws = set()
    for step in range(1, 30):
        stage.after_step(specialists, step)
        found = {tuple(bool(router.get_buffer(f"dropped>{name}")) for name in router.ranks) for router in routers(specialists)}
        assert len(found) == 1
        draws |= found
    assert len(draws) > 4
    assert build(tasks=TASKS, drop=0.0).members[0].stages[0].after_step is None


@pytest.mark.parametrize("options", [{"drop": 1.0}, {"drop": -0.1}, {"batches": 0}])
def test_what_makes_no_sense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="use 0 to below 1"):
        build(tasks=TASKS, **options)  # type: ignore[arg-type]
