"""What every file of tasks/ keeps, found by listing the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_trial import assert_close, gradients, stirred, tiny_examples, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.model.unified import UnifiedModel
from twofold.plugins import describe, names
from twofold.records import Document, Example, Labelled
from twofold.tasks import StepContext, StepResult, Task, build_task, reads

TASKS = names("tasks")


@pytest.fixture(scope="module")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_backbone(tmp_path_factory.mktemp("backbone"))


def fresh(backbone_dir: Path) -> UnifiedModel:
    return stirred(tiny_unified(backbone_dir, LayerPlan((Expert("one", 2),)), **{name: options(name) for name in TASKS}))


def options(name: str) -> dict[str, Any]:
    """What a task cannot be built without."""
    return {"labels": ["a", "b", "c"]} if reads(name) is Labelled else {}


def examples(name: str) -> list[Any]:
    """Three things to learn from, of the kind that the task reads."""
    found = tiny_examples(3, teacher=True)
    if reads(name) is Labelled:
        return [Labelled(one.query_id, one.query, label) for one, label in zip(found, "abc", strict=True)]
    if name == "answer":  # the positive's first word answers, and the others do not
        return [replace(one, answers=(((0, len(one.documents[0].split()[0])),), *(() for _ in one.documents[1:]))) for one in found]
    return [Document(one.query_id, "", one.documents[0]) for one in found] if reads(name) is Document else list(found)


def step(name: str, model: UnifiedModel, weight: float = 1.0, token_budget: int = 8192) -> StepResult:
    task = model.tasks[name]
    assert isinstance(task, Task)
    context = StepContext(model.encoder, lambda loss: loss.backward(), weight=weight, token_budget=token_budget)
    return task.step(examples(name), context)


def test_there_are_tasks_and_each_says_what_it_is() -> None:
    assert {"retrieve", "rerank"} <= set(TASKS)
    assert all(line for _, line in describe("tasks"))


@pytest.mark.parametrize("name", TASKS)
def test_it_is_built_under_its_own_name_or_a_variants(name: str) -> None:
    for own in (name, f"{name}:legal"):
        task = build_task(own, options(name), width=32)
        assert task.name == own
        assert task.measure in ("dense", "reranked", "accuracy", "likelihood", "f1")


@pytest.mark.parametrize("name", TASKS)
def test_it_answers_each_item_in_order(name: str, backbone_dir: Path) -> None:
    model = fresh(backbone_dir)
    items: list[Any] = [one.query if reads(name) is Example else one.text for one in examples(name)]
    if name in ("answer", "rerank", "listwise"):  # a pair is a list of one candidate
        items = [(one.query, one.documents[0]) for one in examples(name)]
    answers = model.predict(name, items)
    assert len(answers) == len(items)
    alone = [model.predict(name, [item])[0] for item in items]
    assert np.allclose(*(np.array(flat(each), dtype=float) for each in (answers, alone)), atol=1e-5)


def flat(answer: Any) -> list[float]:
    """The numbers of an answer."""
    if isinstance(answer, (list, tuple)):
        return [number for part in answer for number in flat(part)]
    return [] if isinstance(answer, str) else [answer]


@pytest.mark.parametrize("name", TASKS)
def test_a_step_leaves_gradients_in_experts_and_own_head_only(name: str, backbone_dir: Path) -> None:
    model = fresh(backbone_dir)
    result = step(name, model)
    assert result.loss == pytest.approx(result.loss)
    assert result.tokens > 0
    assert result.truncated == 0
    for group, members in model.groups().items():
        found = [parameter.grad is not None for _, parameter in members]
        assert all(found) if group == f"head:{name}" or group.startswith("expert:") else not any(found)


@pytest.mark.parametrize("name", TASKS)
def test_weight_scales_the_gradient_and_not_the_loss(name: str, backbone_dir: Path) -> None:
    model = fresh(backbone_dir)
    whole, want = step(name, model), gradients(model)
    half, got = step(name, model, weight=0.5), gradients(model)
    assert half == whole
    assert_close({key: value * 2 for key, value in got.items()}, want, 1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_a_step_is_deterministic_and_adds_to_what_is_there(name: str, backbone_dir: Path) -> None:
    model = fresh(backbone_dir)
    step(name, model)
    once = gradients(model)
    step(name, model)
    again = {key: value.clone() for key, value in gradients(model).items()}
    assert all(torch.equal(again[key], once[key]) for key in once)
    step(name, model)
    step(name, model)
    assert_close(gradients(model), {key: 2 * value for key, value in once.items()}, 1e-6)


@pytest.mark.parametrize("name", TASKS)
def test_the_token_budget_changes_nothing(name: str, backbone_dir: Path) -> None:
    model = fresh(backbone_dir)
    whole, want = step(name, model), gradients(model)
    pieces, got = step(name, model, token_budget=1), gradients(model)
    assert pieces.loss == pytest.approx(whole.loss, abs=1e-5)
    assert_close(got, want, 2e-6)
