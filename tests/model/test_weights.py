"""The mixture's parameters by name and group, and loading a saved set."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_backbone, tiny_pack
from twofold.core.inject import Expert, LayerPlan
from twofold.model.weights import load_mixture, mixture_parameters

PLAN = LayerPlan((Expert("left", 2), Expert("right", 3)), router="soft", scope="block", targets="query|value")


def test_every_parameter_that_the_mixture_added_is_there_once_with_its_group() -> None:
    model = tiny_backbone(plan=PLAN).model
    found = mixture_parameters(model)
    everything = {id(parameter) for name, parameter in model.named_parameters() if ".bank." in name or ".router." in name}
    assert {id(parameter) for _, parameter in found.values()} == everything and len(found) == len(everything)
    assert {group for group, _ in found.values()} == {"expert:left", "expert:right", "router"}
    assert found["encoder.layer.0.attention.self.query.bank.a.left"][0] == "expert:left"
    state = model.state_dict()
    assert all(torch.equal(state[name], parameter) for name, (_, parameter) in found.items())


def test_a_saved_mixture_comes_back_also_into_a_model_that_has_served() -> None:
    trained, fresh, pack = tiny_backbone(plan=PLAN), tiny_backbone(plan=PLAN), tiny_pack((5, 3))
    for _, parameter in mixture_parameters(trained.model).values():
        parameter.data.add_(0.1)
    with torch.no_grad():
        before = fresh(pack, "retrieve")[0]
        load_mixture(fresh.model, {name: parameter.detach() for name, (_, parameter) in mixture_parameters(trained.model).items()})
        after, want = fresh(pack, "retrieve")[0], trained(pack, "retrieve")[0]
    assert torch.equal(after, want) and not torch.equal(after, before)


def test_what_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    model = tiny_backbone(plan=PLAN).model
    state = {name: parameter.detach() + 1 for name, (_, parameter) in mixture_parameters(model).items()}
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    name = "encoder.layer.0.attention.self.query.bank.a.left"
    for change, message in (
        ({name: torch.zeros(5, 32)}, rf"{name} is \(5, 32\), not \(2, 32\)"),
        ({"pooler.bank.a.left": torch.zeros(1)}, "unknown pooler.bank.a.left"),
    ):
        with pytest.raises(ValueError, match=message):
            load_mixture(model, {**state, **change})
    with pytest.raises(ValueError, match=f"missing {name}"):
        load_mixture(model, {other: tensor for other, tensor in state.items() if other != name})
    with pytest.raises(ValueError, match="and [0-9]+ more"):
        load_mixture(model, {})
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_what_experts_share_is_a_group_of_its_own_unless_it_is_named_after_one() -> None:
    plan = LayerPlan((Expert("left", 2), Expert("right", 2)), bank="shared_down", targets="query")
    found = {name.rpartition("query.")[2]: group for name, (group, _) in mixture_parameters(tiny_backbone(plan=plan).model).items()}
    assert found == {"bank.A": "bank", "bank.b.left": "expert:left", "bank.b.right": "expert:right"}
