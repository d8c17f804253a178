"""Whole trials: what they leave on disk, and that methods which should be the same are."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.conftest import MakeConfig
from twofold.checkpoint import load_tensors
from twofold.config import TrialConfig, read
from twofold.data.sources import open_dataset
from twofold.errors import CheckpointError, ConfigError, TrainingStopped
from twofold.model.folder import load_system
from twofold.model.system import System
from twofold.tasks.answer import AnswerTask
from twofold.tasks.rerank import RerankTask
from twofold.train.trial import method_of, prepare, run_trial


def log(folder: Path, member: str = "unified") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "members" / member / "log.jsonl").read_text().splitlines()]


def test_a_trial_leaves_its_folder(make_config: MakeConfig, tmp_path: Path) -> None:
    config, said, seen = make_config(dev={"every": 3}), [], []
    system = run_trial(config, tmp_path / "trial", say=said.append, progress=lambda name, now: seen.append((name, now.step)))
    assert sorted(path.name for path in (tmp_path / "trial").iterdir()) == ["config.toml", "members", "model"]
    assert read(tmp_path / "trial" / "config.toml") == config
    assert seen == [("unified", step) for step in range(1, 7)]
    assert any(line.startswith("weight of the pair score, tuned on dev: ") for line in said)
    facts = json.loads((tmp_path / "trial" / "model" / "facts.json").read_text())
    assert facts["dev"].keys() == {"dense", "reranked", "pipeline"}
    assert facts["dev"]["pipeline"] >= facts["dev"]["dense"]
    assert all(model.rerank_weight == system.rerank_weight for model in system.models)
    assert not any(model.training for model in system.models)


def test_a_task_that_answers_is_tuned_on_dev_and_older_outputs_stay(make_config: MakeConfig, tmp_path: Path) -> None:
    old = run_trial(make_config(optim={"steps": 2}), tmp_path / "old").embedder
    base, said = make_config(dev={"every": 3}).model_dump(), []
    added = {"name": "add_expert", "options": {"rank": 2}}
    asked = {"start": str(tmp_path / "old" / "model"), "method": added, "tasks": {"answer": {"batch": 2}}}
    new = run_trial(TrialConfig.model_validate({**base, **asked}), tmp_path / "new", say=said.append).embedder
    assert any(line.startswith("answer: ") and "tuned on dev (answer 0." in line for line in said)
    looks = [line["dev"] for line in log(tmp_path / "new") if "dev" in line]
    assert all(look.keys() == {"answer"} and 0 <= look["answer"] <= 1 for look in looks)
    assert looks
    opened = load_system(tmp_path / "new" / "model").embedder
    for model in (new, opened):
        task = model.tasks["answer"]
        assert isinstance(task, AnswerTask)
        assert model.spec.tasks["answer"] == {"threshold": task.threshold, "rerank_share": task.rerank_share}
        assert task.threshold != 0.0
        assert (model.encode(["a fox"]) == old.encode(["a fox"])).all()
        assert (model.score([("a", "fox")]) == old.score([("a", "fox")])).all()
    facts = json.loads((tmp_path / "new" / "model" / "facts.json").read_text())
    assert facts["dev"].keys() == {"answer", "answer or nothing"}


def test_a_finished_trial_is_opened_as_it_is(make_config: MakeConfig, tmp_path: Path) -> None:
    config, said = make_config(optim={"steps": 2}), []
    first = run_trial(config, tmp_path / "trial")
    again = run_trial(config, tmp_path / "trial", say=said.append)
    assert said == [f"{tmp_path / 'trial' / 'model'} is there already"]
    assert (first.encode_queries(["a fox"]) == again.encode_queries(["a fox"])).all()


def test_another_trials_folder_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    run_trial(make_config(optim={"steps": 2}), tmp_path / "trial")
    with pytest.raises(ConfigError, match="holds other settings"):
        run_trial(make_config(optim={"steps": 3}), tmp_path / "trial", resume=True)


def test_hard_lora_is_two_lora_specialists_bit_for_bit(make_config: MakeConfig, tmp_path: Path) -> None:
    """The experts of a task-routed mixture train as if alone: a step carries both tasks, and gradients are clipped by group."""
    common: dict[str, Any] = {
        "optim": {"steps": 7, "clip": 0.5, "weight_decay": 0.01},
        "tasks": {"rerank": {"batch": 3, "options": {"head": "both"}}},
    }
    hard = run_trial(make_config(method={"name": "hard_lora", "options": {"rank": 3}}, **common), tmp_path / "hard")
    apart = run_trial(make_config(method={"name": "specialists", "options": {"form": "lora", "rank": 3}}, **common), tmp_path / "apart")
    together = {name: p for members in hard.embedder.groups().values() for name, p in members}
    compared = 0
    for model in apart.models:
        for group, members in model.groups().items():
            for name, parameter in members if group != "backbone" else ():
                assert torch.equal(parameter, together[name]), (group, name)
                assert group == "head:rerank" or parameter.abs().max() > 0
                compared += 1
    assert compared == sum(len(members) for group, members in hard.embedder.groups().items() if group != "backbone")
    for task in ("retrieve", "rerank"):
        rows = zip(log(tmp_path / "hard"), log(tmp_path / "apart", task), strict=True)
        assert all(one["loss"][task] == other["loss"][task] for one, other in rows)
    texts = ["a red fox", "the lazy dog"]
    assert (hard.encode_queries(texts) == apart.encode_queries(texts)).all()
    assert (hard.score([("a fox", text) for text in texts]) == apart.score([("a fox", text) for text in texts])).all()
    assert hard.rerank_weight == apart.rerank_weight


def test_members_are_gone_through_again_after_a_break(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second specialist fails; going on does not train the first again."""
    config = make_config(method={"name": "specialists"}, optim={"lr_backbone": 1e-3}, checkpoint={"every": 4})
    whole = run_trial(config, tmp_path / "whole")
    real, calls = RerankTask.list_loss, []

    def fails(self: RerankTask, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        return real(self, *arguments) * (float("nan") if len(calls) > 9 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(RerankTask, "list_loss", fails)
        with pytest.raises(TrainingStopped, match="step 5: the rerank loss is nan"):
            run_trial(config, tmp_path / "broken")
    assert not (tmp_path / "broken" / "model").exists()
    checkpoints = tmp_path / "broken" / "members" / "rerank" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-000000004"]
    assert all(tensor.isfinite().all() for tensor in load_tensors(checkpoints / "step-000000004" / "weights.safetensors").values())
    with pytest.raises(ConfigError, match="unfinished trial: go on with --resume"):
        run_trial(config, tmp_path / "broken")
    said: list[str] = []
    seen: list[tuple[str, int]] = []
    again = run_trial(
        config, tmp_path / "broken", resume=True, say=said.append, progress=lambda name, now: seen.append((name, now.report.step))
    )
    assert seen == [("rerank", 5), ("rerank", 6)]
    assert "going on after step 4" in said
    for one, other in zip(again.models, whole.models, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_disk_full_at_the_end_can_be_gone_on_from(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise CheckpointError(f"{tmp_path}: could not be written: {errno.errorcode[errno.ENOSPC]}")

    with monkeypatch.context() as patch:
        patch.setattr("twofold.train.trial.folders.save_system", full)
        with pytest.raises(CheckpointError, match="ENOSPC"):
            run_trial(make_config(), tmp_path / "trial")
    seen: list[Any] = []
    assert isinstance(run_trial(make_config(), tmp_path / "trial", resume=True, progress=lambda *now: seen.append(now)), System)
    assert seen == []


def test_zero_shot_is_the_backbone(make_config: MakeConfig, tmp_path: Path) -> None:
    system = run_trial(make_config(method={"name": "zero_shot"}), tmp_path / "trial")
    assert not (tmp_path / "trial" / "members").exists()
    assert json.loads((tmp_path / "trial" / "model" / "facts.json").read_text())["train"] is None
    assert [group for group, members in system.embedder.groups().items() if members and group != "head:rerank"] == ["backbone"]


@pytest.mark.parametrize("task", ["retrieve", "rerank"])
def test_a_trial_of_one_task(task: str, make_config: MakeConfig, tmp_path: Path) -> None:
    config = TrialConfig.model_validate({**make_config().model_dump(), "tasks": {task: {"batch": 2, "negatives": 1}}, "dev": {"every": 3}})
    system = run_trial(config, tmp_path / "trial")
    assert list(system.embedder.tasks) == [task]
    assert [row["dev"].keys() for row in log(tmp_path / "trial") if "dev" in row] == [{task}] * 2
    assert "dev" not in json.loads((tmp_path / "trial" / "model" / "facts.json").read_text())


def test_texts_may_be_shorter_while_training(make_config: MakeConfig, tmp_path: Path) -> None:
    long = run_trial(make_config(optim={"steps": 1}), tmp_path / "long")
    said: list[str] = []
    short = run_trial(make_config(optim={"steps": 1, "max_length": 8, "pair_length": 20}), tmp_path / "short", say=said.append)
    assert log(tmp_path / "short")[0]["tokens"] < log(tmp_path / "long")[0]["tokens"]
    assert log(tmp_path / "short")[0]["truncated"] > 0
    assert any("texts and pairs were cut while training" in line for line in said)
    assert short.embedder.tokens.max_length == long.embedder.tokens.max_length == 24


def test_datasets_can_be_given(make_config: MakeConfig, beir_dir: Path, tmp_path: Path) -> None:
    given = open_dataset(beir_dir).subset(queries=24)
    run_trial(make_config(data={"train": ["mine"]}, optim={"steps": 1}), tmp_path / "trial", datasets={"mine": given})
    facts = json.loads((tmp_path / "trial" / "model" / "facts.json").read_text())
    assert facts["train"]["datasets"] == ["mine"]


def test_a_method_serves_all_tasks_of_the_trial(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.train import mole

    real = mole.build
    monkeypatch.setattr(mole, "build", lambda *, tasks: real(tasks=tasks[:1]))
    with pytest.raises(ConfigError, match=r"serves \['retrieve'\], and the trial's tasks are \['rerank', 'retrieve'\]"):
        method_of(make_config(method={"name": "tests.train.mole"}))


def test_threads_and_device_are_as_asked(make_config: MakeConfig) -> None:
    before = torch.get_num_threads()
    try:
        assert prepare(make_config(threads=2)) == "cpu"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="sees no GPU"):
            prepare(make_config(device="cuda"))
