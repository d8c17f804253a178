"""What every file of methods/ keeps, found by listing the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny_trial import tiny_config, tiny_examples, write_backbone, write_beir
from twofold.config import TrialConfig
from twofold.data.sources import open_dataset
from twofold.methods import Method
from twofold.model.folder import load_system
from twofold.plugins import build_plugin, describe, load, names
from twofold.train.stages import trainable
from twofold.train.start import first_model, with_start
from twofold.train.trial import method_of, run_trial

METHODS = names("methods")
BOTH = ("retrieve", "rerank")
TINY = {"e2rank": {"k": 2, "document_tokens": 8}}
"""What a method must be told to fit a backbone of 64 tokens and a dataset of 40 documents."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("methods")
    return write_backbone(folder / "backbone"), write_beir(folder / "beir")


def start_of(name: str, folders: tuple[Path, Path]) -> dict[str, str]:
    """A trained model for the methods that go on from one: of the method that `NEEDS_START` names, or ours."""
    needed = getattr(load("methods", name), "NEEDS_START", False)
    if not needed:
        return {}
    kind = needed if isinstance(needed, str) else "moe_lora"
    made = folders[0].parent / f"start-{kind}"
    run_trial(tiny_config(*folders, method={"name": kind}, optim={"steps": 1}), made, resume=True)
    return {"start": str(made / "model")}


def tasks_of(name: str, tasks: tuple[str, ...] = BOTH) -> tuple[str, ...]:
    """These tasks, and those that the method only learns from."""
    return (*tasks, *getattr(load("methods", name), "LEARNS", ()))


def config_of(name: str, folders: tuple[Path, Path], **changes: object) -> TrialConfig:
    method = {"name": name, "options": TINY.get(name, {})}
    learnt = {"tasks": {task: {"batch": 2} for task in tasks_of(name, ())}} if tasks_of(name, ()) else {}
    return tiny_config(*folders, method=method, **learnt, **start_of(name, folders), **changes)


def test_there_are_methods_and_each_says_what_it_is() -> None:
    assert {"zero_shot", "specialists", "shared_lora", "hard_lora", "moe_lora"} <= set(METHODS)
    assert all(line for _, line in describe("methods"))


@pytest.mark.parametrize("tasks", [BOTH, ("retrieve",), ("rerank",)])
@pytest.mark.parametrize("name", METHODS)
def test_it_serves_each_task_once(name: str, tasks: tuple[str, ...]) -> None:
    method: Method = build_plugin("methods", name, {}, tasks=tasks_of(name, tasks))
    assert method.name == name
    assert sorted(method.serves) == sorted(tasks)
    trained = {task for member in method.members for stage in member.stages for task in stage.tasks}
    assert trained in (set(), set(tasks_of(name, tasks)))
    assert method.learns == tasks_of(name, ())


@pytest.mark.parametrize("name", METHODS)
def test_its_stages_name_what_its_models_have(name: str, folders: tuple[Path, Path]) -> None:
    config = with_start(config_of(name, folders))
    for member in method_of(config).members:
        model = first_model(config, member, {}, torch.device("cpu"), lambda task, step: tiny_examples(2, seed=step))
        for stage in member.stages:
            chosen = trainable(model, stage)
            ids = {id(parameter) for members in chosen.values() for _, parameter in members}
            assert {id(parameter) for parameter in model.parameters() if parameter.requires_grad} == ids


@pytest.mark.parametrize("name", METHODS)
def test_it_trains_saves_and_opens_again(name: str, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(folders[0].parent / "cache"))
    config = config_of(name, folders, optim={"steps": 2})
    system = run_trial(config, tmp_path / "trial")
    again = load_system(tmp_path / "trial" / "model")
    dataset = open_dataset(folders[1])
    queries = list(dataset.queries("test").values())
    pairs = [(query, dataset.corpus.document("d3").body) for query in queries]
    assert (system.encode_queries(queries) == again.encode_queries(queries)).all()
    assert (system.score(pairs) == again.score(pairs)).all()
    assert system.rerank_weight == again.rerank_weight
