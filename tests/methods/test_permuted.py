"""The control keeps what was really routed, and is ours until it is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tests.methods.joint import joint, train
from tests.train.setups import weights
from twofold.core.inject import mixtures
from twofold.core.routing import current


def test_it_trains_bit_for_bit_as_ours(tmp_path: Path) -> None:
    ours, control = joint(tmp_path / "a", "moe_lora", {"rank": 2}), joint(tmp_path / "b", "permuted", {"rank": 2})
    for setup in (ours, control):
        train(setup)
    assert all(torch.equal(weights(ours)[name], value) for name, value in weights(control).items())


def test_the_donors_are_the_newest_inputs_of_each_task_in_the_same_order_in_every_layer(tmp_path: Path) -> None:
    setup = joint(tmp_path, "permuted", {"rank": 2, "donors": 9}, steps=2)
    layers = list(mixtures(setup.model.backbone.model))
    seen: dict[tuple[str, str], list[torch.Tensor]] = {}

    def listen(module: torch.nn.Module, inputs: object, y: object) -> None:
        if module.training:
            routing = current().routings[module.layer]  # type: ignore[index]
            seen.setdefault((routing.layer, routing.tasks[0]), []).append(routing.weight.detach().clone())

    for layer in layers:
        layer.register_forward_hook(listen)
    steps: list[dict[tuple[str, str], list[torch.Tensor]]] = []
    train(setup, lambda *_: steps.append({key: seen.pop(key) for key in list(seen)}))
    for layer in layers:
        for k, task in enumerate(("retrieve", "rerank")):
            newest = torch.cat([*steps[1][layer.layer, task], *steps[0][layer.layer, task]])[:9]
            kept = layer.router.get_buffer("donor_KNE")[k]
            assert torch.equal(kept[: len(newest)], newest)
            assert (kept[len(newest) :] == 1).all()


def test_at_test_the_input_decides_nothing_but_its_donor(tmp_path: Path) -> None:
    """With donors that are all the mean, it is the model with its tasks' mean weights; with its own it is another than ours."""
    setup = joint(tmp_path, "permuted", {"rank": 2}, steps=4)
    setup = replace(setup, optim=setup.optim.model_copy(update={"lr": 0.05}))
    train(setup)
    texts = ["a red fox", "the lazy dog runs over it", "what is a query"]
    permuted = setup.model.encode(texts)
    for layer in mixtures(setup.model.backbone.model):
        donors = layer.router.get_buffer("donor_KNE")
        donors.copy_(donors.mean(1, keepdim=True).expand_as(donors))
    mean = setup.model.encode(texts)
    assert (mean != permuted).any()
    routing = next(iter(setup.model.routings(texts=texts).values()))
    assert (routing.weight == routing.weight[0]).all()
