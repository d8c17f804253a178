"""Two stages, one embedder, and the side rows as options."""

from __future__ import annotations

import pytest

from twofold.methods.e2rank import build

TASKS = ("retrieve", "rerank")


def test_retrieval_first_then_both() -> None:
    (member,) = build(tasks=TASKS, first=0.25).members
    assert [(stage.tasks, stage.trains, stage.share) for stage in member.stages] == [
        (("retrieve",), ("backbone", "head:*"), 0.25),
        (TASKS, ("backbone", "head:*"), 0.75),
    ]
    assert member.plan.experts == ()
    given = member.options["rerank"]
    assert (given["form"], given["documents_as"], given["factor"], given["k"]) == ("listwise", "retrieve", 2.0, 6)
    assert member.options["retrieve"] == {"temperature": 0.03}


def test_at_lora_budget_both_stages_train_the_one_expert() -> None:
    (member,) = build(tasks=TASKS, form="lora", rank=24).members
    assert [(expert.name, expert.rank) for expert in member.plan.experts] == [("shared", 24)]
    assert {stage.trains for stage in member.stages} == {("expert:*", "head:*")}


def test_stage_one_only_still_serves_lists() -> None:
    (member,) = build(tasks=TASKS, trained=False, feedback="rocchio").members
    assert [stage.tasks for stage in member.stages] == [("retrieve",)]
    assert member.serves == TASKS and member.options["rerank"]["feedback"] == "rocchio"


def test_a_variant_uses_its_own_embedder() -> None:
    options = build(tasks=("retrieve:legal", "rerank:legal")).members[0].options
    assert options["rerank:legal"]["documents_as"] == "retrieve:legal"
    assert build(tasks=("rerank",)).members[0].options["rerank"]["documents_as"] == "rerank"


@pytest.mark.parametrize("wrong", [{"form": "half"}, {"first": 1.0}])
def test_what_makes_no_sense_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        build(tasks=TASKS, **wrong)  # type: ignore[arg-type]
