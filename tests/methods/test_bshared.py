"""A language model first, adapters apart afterwards, and the same start for everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_trial import tiny_config, tiny_examples, write_backbone, write_beir
from twofold.methods.bshared import build
from twofold.model.folder import load, read_facts
from twofold.model.proof import without_experts
from twofold.model.state import unchanged
from twofold.records import Example
from twofold.train.start import first_model
from twofold.train.trial import method_of, run_trial

TASKS = ("retrieve", "rerank", "lm")


def test_the_backbone_first_then_an_adapter_for_each_task() -> None:
    (member,) = build(tasks=TASKS, before=0.25).members
    assert (member.serves, member.learns) == (("retrieve", "rerank"), ("lm",))
    assert [(stage.tasks, stage.trains, stage.share) for stage in member.stages] == [
        (("lm",), ("backbone",), 0.25),
        (("retrieve", "rerank"), ("expert:*", "head:*"), 0.75),
    ]
    roster = member.plan.roster(TASKS)
    assert [roster.visible((task,)) for task in TASKS] == [("embedding",), ("reranking",), ()]
    assert sum(expert.rank for expert in member.plan.experts) == 24


@pytest.mark.parametrize("wrong", [{"tasks": ("retrieve", "rerank")}, {"tasks": ("lm",)}, {"tasks": TASKS, "before": 0.0}])
def test_without_a_language_model_it_is_another_method(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="it pre-trains by a task lm besides others"):
        build(**wrong)


def test_every_method_can_start_from_what_it_pre_trained(tmp_path: Path, cache_dir: Path) -> None:
    """The saved model does not do lm; its backbone changed in the first stage only, and is another trial's by the folder's name."""
    torch.set_num_threads(1)
    folders = write_backbone(tmp_path / "backbone"), write_beir(tmp_path / "beir")
    config = tiny_config(*folders, method={"name": "bshared"}, tasks={"lm": {"batch": 4}}, optim={"steps": 6, "lr_backbone": 1e-2})
    run_trial(config, tmp_path / "trial")
    model = load(tmp_path / "trial" / "model")
    assert sorted(model.tasks) == sorted(model.spec.tasks) == ["rerank", "retrieve"] and not unchanged(model)
    facts = read_facts(tmp_path / "trial" / "model")["train"]
    assert facts["steps"] == {"retrieve": 4, "rerank": 4} and facts["before"] == {"lm": 2}

    def batches(_: str, step: int) -> list[Example]:
        return tiny_examples(2, seed=step)

    other = tiny_config(tmp_path / "trial" / "model", folders[1], method={"name": "shared_lora"})
    fresh = first_model(other, method_of(other).members[0], {}, torch.device("cpu"), batches)
    with without_experts(model):
        assert np.array_equal(fresh.encode(["a fox"]), model.encode(["a fox"]))
    untouched = first_model(tiny_config(*folders), method_of(other).members[0], {}, torch.device("cpu"), batches)
    assert np.abs(untouched.encode(["a fox"]) - fresh.encode(["a fox"])).max() > 1e-3
    run_trial(other.model_copy(update={"optim": other.optim.model_copy(update={"steps": 1})}), tmp_path / "other")
    assert unchanged(load(tmp_path / "other" / "model"))
