"""A trial that starts from a trained model: grown or continued, from one command's settings, resumed only from the same start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_trial import tiny_config, tiny_examples, write_backbone, write_beir
from twofold.config import TrialConfig
from twofold.errors import ConfigError
from twofold.model.folder import load, load_system, read_facts
from twofold.model.system import System
from twofold.train.start import with_start
from twofold.train.trial import method_of, run_trial

TEXTS = ["ba ce", "du", "fa gi ho"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Backbone, dataset, and a trained model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("start")
    backbone, data = write_backbone(folder / "backbone"), write_beir(folder / "beir")
    run_trial(tiny_config(backbone, data, method={"name": "moe_lora"}, optim={"steps": 2}), folder / "trial")
    letters = folder / "letters"
    letters.mkdir()
    rows = [{"text": f"{'ba' if i % 2 else 'zu'} number {i}", "label": "ba" if i % 2 else "zu"} for i in range(60)]
    (letters / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return backbone, data, folder / "trial" / "model"


@pytest.fixture(scope="module")
def specialists(places: tuple[Path, Path, Path]) -> Path:
    """A trial of hard LoRAs: each task's expert, trained apart, in one saved model."""
    backbone, data, start = places
    method = {"name": "hard_lora", "options": {"rank": 2}}
    run_trial(tiny_config(backbone, data, method=method, optim={"steps": 2}), start.parents[1] / "specialists")
    return start.parents[1] / "specialists" / "model"


@pytest.fixture(autouse=True)
def _cache(places: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(places[0].parent / "cache"))


def settings(start: Path, data: list[str], **others: Any) -> TrialConfig:
    base: dict[str, Any] = {
        "name": "next",
        "start": str(start),
        "data": {"train": data},
        "optim": {"steps": 3, "lr": 0.01},
        "device": "cpu",
    }
    return TrialConfig.model_validate({**base, **others})


def test_a_fourth_expert_leaves_older_vectors_and_scores_alone(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, _, start = places
    before = load(start)
    tasks = {"classify": {"batch": 8}}
    config = settings(start, [str(start.parents[1] / "letters")], method={"name": "add_expert", "options": {"rank": 2}}, tasks=tasks)
    system = run_trial(config, tmp_path / "next")
    again = load(tmp_path / "next" / "model")
    for model in (system.embedder, again):
        assert np.array_equal(model.encode(TEXTS), before.encode(TEXTS))
        assert np.array_equal(model.score([("ba", text) for text in TEXTS]), before.score([("ba", text) for text in TEXTS]))
        assert model.rerank_weight == before.rerank_weight
        assert {guess.label for guess in model.predict("classify", TEXTS)} <= {"ba", "zu"}
    assert again.spec.tasks["classify"] == {"labels": ["ba", "zu"]}
    facts = read_facts(tmp_path / "next" / "model")
    assert facts["train"]["steps"] == {"classify": 3}
    assert facts["start"]["path"] == str(start)


def test_a_domain_gets_an_expert_and_a_weight_of_its_own(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, data, start = places
    tasks = {"retrieve:legal": {"batch": 3, "negatives": 1}, "rerank:legal": {"batch": 2, "negatives": 1}}
    run_trial(settings(start, [str(data)], method={"name": "add_expert", "options": {"rank": 2}}, tasks=tasks), tmp_path / "next")
    before, after = load(start), load_system(tmp_path / "next" / "model").embedder
    assert np.array_equal(after.encode(TEXTS), before.encode(TEXTS))
    legal = System.of(after, "legal")
    assert not np.array_equal(legal.encode_queries(TEXTS), after.encode_queries(TEXTS))
    assert after.variant_weights.keys() == {"legal"}
    assert legal.rerank_weight == after.variant_weights["legal"]
    assert after.rerank_weight == before.rerank_weight
    with pytest.raises(ValueError, match="no variant 'medical'"):
        System.of(after, "medical")


def test_going_on_with_the_shared_expert_changes_it_alone(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, data, start = places
    tasks = {"retrieve": {"batch": 3, "negatives": 1}, "rerank": {"batch": 2, "negatives": 1}}
    method = {"name": "continued", "options": {"experts": ["shared"], "router": False}}
    system = run_trial(settings(start, [str(data)], method=method, tasks=tasks), tmp_path / "next")
    old, new = (dict(model.groups()) for model in (load(start), system.embedder))
    same = {group: all(torch.equal(a, b) for (_, a), (_, b) in zip(old[group], new[group], strict=True)) for group in old if old[group]}
    assert [group for group, equal in same.items() if not equal] in (["expert:shared"], ["expert:shared", "head:rerank"])


RANKING = {"retrieve": {"batch": 3, "negatives": 1}, "rerank": {"batch": 2, "negatives": 1}}


@pytest.mark.parametrize("name", ["mole", "ramole", "xlora"])
def test_a_router_over_specialists_leaves_them_alone(name: str, places: tuple[Path, Path, Path], specialists: Path, tmp_path: Path) -> None:
    """All three start from the same saved experts; whatever learns, these and the heads are bit-identical afterwards."""
    _, data, _ = places
    config = settings(specialists, [str(data)], method={"name": name}, tasks=RANKING)
    run_trial(config, tmp_path / "next")
    before, after = load(specialists), load(tmp_path / "next" / "model")
    old, new = before.groups(), after.groups()
    for group in ("expert:embedding", "expert:reranking", "head:rerank", "backbone"):
        assert [each for each, _ in old[group]] == [each for each, _ in new[group]]
        assert old[group]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(old[group], new[group], strict=True))
    assert after.spec.plan.router == name
    assert not np.array_equal(after.encode(TEXTS), before.encode(TEXTS))
    facts = read_facts(tmp_path / "next" / "model")
    assert facts["train"]["parameters"]["trainable"] == sum(parameter.numel() for _, parameter in new["router"])
    (member,) = method_of(config).members
    assert member.before is not None
    member.before(before, lambda task, step: tiny_examples(2))
    moved = [not torch.equal(a, b) for (_, a), (_, b) in zip(before.groups()["router"], new["router"], strict=True)]
    assert any(moved)


@pytest.mark.parametrize(("name", "options"), [("arrow", {}), ("merge", {"kind": "ties", "rank": 3})])
def test_without_stages_the_change_is_all(
    name: str, options: Any, places: tuple[Path, Path, Path], specialists: Path, tmp_path: Path
) -> None:
    _, data, _ = places
    run_trial(settings(specialists, [str(data)], method={"name": name, "options": options}, tasks=RANKING), tmp_path / "next")
    assert not np.array_equal(load(tmp_path / "next" / "model").encode(TEXTS), load(specialists).encode(TEXTS))
    assert read_facts(tmp_path / "next" / "model")["train"] is None


def test_the_mean_mixture_has_our_mixtures_experts(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Trained at the same settings; what was trained is counted, its router too, and what is left of it is active."""
    backbone, data, start = places
    run_trial(tiny_config(backbone, data, method={"name": "mixture_mean"}, optim={"steps": 2}), tmp_path / "mean")
    ours, mean = load(start), load(tmp_path / "mean" / "model")
    for group in ("expert:embedding", "expert:reranking", "expert:shared", "head:rerank"):
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(ours.groups()[group], mean.groups()[group], strict=True))
    assert mean.spec.plan.router == "task_gate"
    counts = read_facts(tmp_path / "mean" / "model")["train"]["parameters"]
    assert counts["trainable"] == read_facts(start)["train"]["parameters"]["trainable"]
    experts = [p for group, own in mean.groups().items() if group.startswith("expert:") for _, p in own]
    assert counts["active"]["retrieve"] == sum(p.numel() for p in experts)


def test_a_model_without_experts_is_no_start_for_a_router(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, data, _ = places
    run_trial(tiny_config(backbone, data, method={"name": "zero_shot"}), tmp_path / "bare")
    with pytest.raises(ConfigError, match="has no experts to route over"):
        run_trial(settings(tmp_path / "bare" / "model", [str(data)], method={"name": "mole"}, tasks=RANKING), tmp_path / "next")


def test_its_backbone_and_lengths_are_the_starts(places: tuple[Path, Path, Path]) -> None:
    backbone, data, start = places
    config = with_start(settings(start, [str(data)], backbone={"precision": "bf16"}))
    assert config.backbone.name == str(backbone)
    assert config.backbone.max_length == load(start).spec.max_length
    assert config.backbone.precision == "bf16"
    assert with_start(config) == config
    with pytest.raises(ConfigError, match="backbone.max_length = 99, but .*leave it out"):
        with_start(settings(start, [str(data)], backbone={"max_length": 99}))


def test_continued_needs_a_start(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    backbone, data, _ = places
    with pytest.raises(ConfigError, match="goes on from a trained model: say"):
        run_trial(tiny_config(backbone, data, method={"name": "continued"}), tmp_path / "next")
    with pytest.raises(ConfigError, match=r"goes on from a trained model \(of 'hard_lora', say\)"):
        run_trial(tiny_config(backbone, data, method={"name": "mole"}), tmp_path / "other")


def test_a_finished_trials_settings_are_not_to_be_edited(places: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Its config.toml was changed and run again: the model there is another's."""
    backbone, data, _ = places
    config = tiny_config(backbone, data, method={"name": "zero_shot"})
    run_trial(config, tmp_path / "trial")
    run_trial(config, tmp_path / "trial")
    other = config.model_copy(update={"seed": 7})
    (tmp_path / "trial" / "config.toml").write_text(other.to_toml(), encoding="utf-8")
    with pytest.raises(ConfigError, match="was trained with other settings"):
        run_trial(other, tmp_path / "trial")
