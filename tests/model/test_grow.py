"""A grown model: everything older is the same, bit for bit, before and after the new expert has learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_trial import stirred, tiny_examples, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.errors import CheckpointError
from twofold.model import folder
from twofold.model.grow import Growth, grown, named_parameters
from twofold.model.state import fingerprint
from twofold.model.unified import UnifiedModel
from twofold.records import Labelled
from twofold.tasks import StepContext

TEXTS = ["one", "two of them", "a third text that is longer than the others"]
PAIRS = [("one", text) for text in TEXTS]
THREE = (Expert("embedding", 2), Expert("reranking", 2), Expert("shared", 3))
CLASSIFY = Growth(LayerPlan((Expert("classify", 2),)), {"classify": {"labels": ["a", "b"]}})
ANSWER = Growth(LayerPlan((Expert("answer", 2),)), {"answer": {}})
LEGAL = Growth(LayerPlan((Expert("domain:legal", 2),)), {"retrieve:legal": {}, "rerank:legal": {}})
ROUTERS: list[tuple[str, dict[str, Any]]] = [
    ("soft", {}),
    ("soft", {"hidden": 4, "level": "token"}),
    ("soft", {"activation": "sigmoid", "total": 1.0}),
    ("topk", {"k": 2}),
    ("task_gate", {}),
    ("uniform", {}),
    ("frozen_random", {}),
    ("ramole", {"k": 2}),
    ("arrow", {"k": 2}),
]


@pytest.fixture(scope="module")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


def saved(backbone_dir: Path, path: Path, router: str = "soft", options: dict[str, Any] | None = None, **plan: Any) -> UnifiedModel:
    model = stirred(tiny_unified(backbone_dir, LayerPlan(THREE, router=router, router_options=options or {}, **plan)))
    folder.save(model, path)
    return model


def learn(model: UnifiedModel, task: str, examples: list[Any], steps: int = 3, rate: float = 0.1) -> None:
    """Steps on all parameters that may move."""
    kept = {id(parameter) for parameter in model.never_trained}
    moving = [p for p in named_parameters(model).values() if id(p) not in kept]
    for parameter in model.parameters():
        parameter.requires_grad_(any(parameter is other for other in moving))
    optimiser = torch.optim.AdamW(moving, lr=rate)
    model.train()
    for _ in range(steps):
        model.tasks[task].step(examples, StepContext(model.encoder, lambda loss: loss.backward()))  # type: ignore[operator]
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


@pytest.mark.parametrize(("router", "options"), ROUTERS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(ROUTERS)])
@pytest.mark.parametrize("growth", [CLASSIFY, ANSWER, LEGAL], ids=["classify", "answer", "domain"])
def test_older_vectors_and_scores_are_bit_identical(backbone_dir: Path, tmp_path: Path, growth: Growth, router: str, options: Any) -> None:
    before = saved(backbone_dir, tmp_path / "old", router, options)
    vectors, scores = before.encode(TEXTS), before.score(PAIRS)
    model = folder.load(tmp_path / "old", growth=growth)
    assert np.array_equal(model.encode(TEXTS), vectors)
    assert np.array_equal(model.score(PAIRS), scores)
    if growth is CLASSIFY:
        learn(model, "classify", [Labelled(str(i), text, "ab"[i % 2]) for i, text in enumerate(TEXTS)])
    elif growth is ANSWER:
        unread = model.predict("answer", PAIRS)
        learn(model, "answer", [replace(one, answers=(((0, 2),), (), ())) for one in tiny_examples(3)])
        assert model.predict("answer", PAIRS) != unread
    else:
        learn(model, "retrieve:legal", tiny_examples(3))
        assert not np.array_equal(model.encode(TEXTS, variant="legal"), vectors)
    assert np.array_equal(model.encode(TEXTS), vectors)
    assert np.array_equal(model.score(PAIRS), scores)
    folder.save(model, tmp_path / "new")
    again = folder.load(tmp_path / "new")
    assert np.array_equal(again.encode(TEXTS), vectors)
    assert np.array_equal(again.score(PAIRS), scores)
    for task in ("retrieve", "rerank"):
        assert fingerprint(again, task) == fingerprint(before, task)
    assert fingerprint(again) != fingerprint(before)


def test_the_new_task_learns_and_only_new_parameters_move(backbone_dir: Path, tmp_path: Path) -> None:
    saved(backbone_dir, tmp_path / "old")
    model = folder.load(tmp_path / "old", growth=CLASSIFY)
    start = {name: parameter.detach().clone() for name, parameter in named_parameters(model).items()}
    learn(model, "classify", [Labelled(str(i), text, "ab"[i % 2]) for i, text in enumerate(TEXTS)], steps=60, rate=0.02)
    assert [guess.label for guess in model.predict("classify", TEXTS)] == ["a", "b", "a"]
    moved = {name for name, parameter in named_parameters(model).items() if not torch.equal(parameter, start[name])}
    assert moved
    assert all("classify" in name for name in moved)


def test_a_domain_starts_as_its_kind(backbone_dir: Path, tmp_path: Path) -> None:
    """The new expert's B is zero and the tasks' biases are copied: with a router that does not look, nothing has changed yet."""
    before = saved(backbone_dir, tmp_path / "old", "uniform")
    model = folder.load(tmp_path / "old", growth=LEGAL)
    assert np.allclose(model.encode(TEXTS, variant="legal"), before.encode(TEXTS), atol=1e-6)
    assert np.allclose(model.score(PAIRS, variant="legal"), before.score(PAIRS), atol=1e-5)


def test_an_old_task_that_saw_all_experts_does_not_see_the_new_one(backbone_dir: Path) -> None:
    spec = tiny_unified(backbone_dir, LayerPlan(THREE, router="soft")).spec
    after = grown(spec, CLASSIFY)
    assert after.plan.sees["retrieve"] == ("embedding", "reranking", "shared")
    assert after.plan.sees["classify"] == ("embedding", "reranking", "shared", "classify")
    assert grown(after, LEGAL).plan.sees["classify"] == after.plan.sees["classify"]


def test_what_a_new_task_sees_can_be_said(backbone_dir: Path) -> None:
    spec = tiny_unified(backbone_dir, LayerPlan(THREE, sees={"retrieve": ("embedding", "shared")}, router="soft")).spec
    assert grown(spec, LEGAL).plan.sees["retrieve:legal"] == ("embedding", "shared", "domain:legal")
    alone = Growth(CLASSIFY.plan, CLASSIFY.tasks, {"classify": ()})
    assert grown(spec, alone).plan.sees["classify"] == ("classify",)
    with pytest.raises(ValueError, match="old expert 'nobody'"):
        grown(spec, Growth(CLASSIFY.plan, CLASSIFY.tasks, {"classify": ("nobody",)}))


def test_what_is_there_already_is_refused(backbone_dir: Path, tmp_path: Path) -> None:
    saved(backbone_dir, tmp_path / "old")
    with pytest.raises(CheckpointError, match="has an expert 'shared' already"):
        folder.load(tmp_path / "old", growth=Growth(LayerPlan((Expert("shared", 2),)), {"classify": {"labels": ["a", "b"]}}))
    with pytest.raises(CheckpointError, match="a new expert needs a task of its own"):
        folder.load(tmp_path / "old", growth=Growth(LayerPlan((Expert("more", 2),)), {"retrieve": {}}))


def test_a_gate_over_all_experts_at_once_cannot_grow(backbone_dir: Path, tmp_path: Path) -> None:
    saved(backbone_dir, tmp_path / "old", "mole")
    with pytest.raises(CheckpointError, match=r"cannot grow: its bank or router has no place for .*gate"):
        folder.load(tmp_path / "old", growth=CLASSIFY)


def test_without_anything_new_everything_may_go_on(backbone_dir: Path, tmp_path: Path) -> None:
    saved(backbone_dir, tmp_path / "old")
    model = folder.load(tmp_path / "old", growth=Growth(tasks={"retrieve": {}}))
    assert model.never_trained == []
    assert list(model.tasks) == ["retrieve", "rerank"]
