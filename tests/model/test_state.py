"""A model's tensors by name, what does not fit, and the fingerprint over all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.model.conftest import MakeModel
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.model.build import build_model
from twofold.model.state import backbone_state, fingerprint, load_state, mixture_buffers, state_of, unchanged


def test_a_state_comes_back(make_model: MakeModel) -> None:
    trained, fresh = make_model("soft"), make_model("soft", noise=0.0)
    load_state(fresh, state_of(trained))
    own, wanted = fresh.state_dict(), trained.state_dict()
    assert all(torch.equal(own[name], wanted[name]) for name in wanted)
    assert fingerprint(fresh) == fingerprint(trained)


def test_buffers_of_routers_come_back(make_model: MakeModel) -> None:
    models = [make_model("uniform"), make_model("uniform")]
    for i, model in enumerate(models):
        for layer in mixtures(model.backbone.model):
            layer.router.register_buffer("balance", torch.full((1,), float(i)))
    load_state(models[0], state_of(models[1]))
    assert all(float(buffer) == 1 for buffer in mixture_buffers(models[0]).values()) and len(mixture_buffers(models[0])) == 12


def test_a_stranger_among_the_experts_is_named(make_model: MakeModel) -> None:
    model = make_model("soft")
    state = state_of(model)
    name = next(name for name in state if name.endswith("bank.a.shared"))
    with pytest.raises(ValueError, match=r"unknown expert 'legal' in the weights: this model's experts are \['embedding'"):
        load_state(model, state | {name.replace("shared", "legal"): state[name]})
    with pytest.raises(ValueError, match="the weights have no expert 'shared': they hold"):
        load_state(model, {name: tensor for name, tensor in state.items() if not name.endswith("shared")})


def test_whatever_else_does_not_fit_is_named(make_model: MakeModel) -> None:
    model = make_model("soft")
    state = state_of(model)
    with pytest.raises(ValueError, match="unknown tensor 'evil.thing'"):
        load_state(model, state | {"evil.thing": torch.zeros(1)})
    with pytest.raises(ValueError, match="head tensors .*'rerank.log_scale'"):
        load_state(model, {name: tensor for name, tensor in state.items() if name != "head.rerank.log_scale"})
    with pytest.raises(ValueError, match="does not fit this model: unknown .*router.extra"):
        load_state(model, state | {"mixture.encoder.layer.0.router.extra": torch.zeros(1)})


def test_a_folded_model_has_no_state_to_save(make_model: MakeModel) -> None:
    model = make_model("by_task")
    model.fold("retrieve")
    with pytest.raises(ValueError, match=r"folded for one task: unfold\(\) first"):
        state_of(model)


def test_the_backbone_keeps_its_names_and_is_known_to_be_unchanged(make_model: MakeModel) -> None:
    bare, mixed = make_model("none"), make_model("soft")
    names = bare.backbone.model.state_dict().keys()
    assert backbone_state(bare).keys() == names == backbone_state(mixed).keys()
    assert unchanged(bare) and unchanged(mixed)
    with torch.no_grad():
        mixed.backbone.model.get_parameter("embeddings.word_embeddings.weight")[3, 3] += 1e-3
    assert not unchanged(mixed)


def test_the_fingerprint_sees_what_decides_the_numbers(make_model: MakeModel) -> None:
    models = {
        "one": make_model("soft"),
        "plan": make_model("topk"),
        "weights": make_model("soft", noise=0.3),
        "prompt": make_model("soft", prompts={"query": "query : "}),
        "length": make_model("soft", max_length=20),
        "pooling": make_model("soft", pooling="first"),
        "task": make_model("soft", tasks={"retrieve": {}, "rerank": {"head": "both", "scale": 3.0}}),
        "family": make_model("soft", "roberta"),
    }
    assert len({fingerprint(model) for model in models.values()}) == len(models)


def test_the_fingerprint_stays_what_it_is(make_model: MakeModel) -> None:
    model = make_model("soft")
    before = fingerprint(model)
    model.encode(["a dog"])
    model.tokens.tokenizer(["a dog", "a"], truncation=True, max_length=3, padding=True)
    assert fingerprint(model) == before == fingerprint(make_model("soft"))


def test_what_experts_share_is_saved_and_missed(make_model: MakeModel) -> None:
    """Also where no parameter is named after an expert."""
    experts = tuple(Expert(f"{task}-{i}", 2) for task in ("retrieve", "rerank") for i in range(2))
    sees = {task: tuple(e.name for e in experts if e.name.startswith(task)) for task in ("retrieve", "rerank")}
    base = make_model("soft")
    spec = replace(base.spec, plan=LayerPlan(experts, sees, bank="task_transform", router="task_gate"))
    first, second = build_model(spec), build_model(replace(spec, seed=9))
    assert not torch.equal(first.groups()["bank"][0][1], second.groups()["bank"][0][1])
    load_state(second, state_of(first))
    assert all(torch.equal(a, state_of(second)[name]) for name, a in state_of(first).items())
    with pytest.raises(ValueError, match="the weights have no expert 'A'"):
        load_state(second, {name: tensor for name, tensor in state_of(first).items() if not name.endswith("bank.A")})
