"""Another mixture in the place of a trained model's: other routers over its experts, or other experts. Nothing is trained here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twofold.core.inject import LayerPlan, mixtures
from twofold.model.build import put_mixture
from twofold.model.folding import unfold
from twofold.model.state import load_state, state_of
from twofold.model.unified import UnifiedModel


def replan(model: UnifiedModel, plan: LayerPlan) -> None:
    """Puts `plan` in the place of the model's own, in place; a folded model is unfolded.

    Routers are new. Where the plan has the same experts in the same layers and the same kind of bank, these stay as they are,
    the very same parameters; else they are new, too.
    """
    unfold(model.backbone.model)
    layers, old = list(mixtures(model.backbone.model)), model.spec.plan
    same = all(getattr(plan, what) == getattr(old, what) for what in ("experts", "targets", "bank", "bank_options"))
    training = model.training
    model.train()  # in eval mode a bank keeps a copy of whatever experts are asked for, and new routers ask for each alone
    for layer in layers:
        model.backbone.model.set_submodule(layer.layer, layer.linear)
    model.spec = replace(model.spec, plan=plan)
    put_mixture(model.backbone.model, model.spec, model.backbone.device, {each.layer: each.bank for each in layers} if same else {})
    model.train(training)


def set_router(model: UnifiedModel, **options: Any) -> None:
    """The model's routers with other options and what they have learned: MOLE's `masked` experts, a top-k's `k`, a temperature.

    Raises ConfigError for an option that the router does not have, and ValueError where it asks for other parameters.
    """
    state, plan = state_of(model), model.spec.plan
    replan(model, replace(plan, router_options={**plan.router_options, **options}))
    load_state(model, state)
