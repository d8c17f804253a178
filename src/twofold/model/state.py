"""All of a model's numbers by name, apart from the backbone's own or with them: what is saved, loaded and fingerprinted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from twofold.backbone.load import load_model
from twofold.checkpoint import fingerprint as digest_of
from twofold.core.inject import mixtures
from twofold.errors import ConfigError
from twofold.model.unified import UnifiedModel
from twofold.model.weights import load_mixture, mixture_parameters

Tensors = dict[str, Tensor]


def state_of(model: UnifiedModel) -> Tensors:
    """Experts and routers as `mixture.…`, their buffers as `buffer.…`, heads as `head.TASK.…`. Raises ValueError for a folded model."""
    if any(layer.folded is not None for layer in mixtures(model.backbone.model)):
        raise ValueError("the model is folded for one task: unfold() first")
    found = {f"mixture.{name}": parameter.detach() for name, (_, parameter) in mixture_parameters(model.backbone.model).items()}
    found |= {f"buffer.{name}": buffer for name, buffer in mixture_buffers(model).items()}
    return found | {f"head.{name}": tensor for name, tensor in model.tasks.state_dict().items()}


@torch.no_grad()
def load_state(model: UnifiedModel, state: Mapping[str, Tensor]) -> None:
    """The reverse of `state_of`. Raises ValueError naming an expert that the model does not have, and whatever else does not fit."""
    parts: dict[str, Tensors] = {"mixture": {}, "buffer": {}, "head": {}}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise ValueError(f"unknown tensor {name!r}: names begin with {', '.join(parts)}")
        parts[part][rest] = tensor
    there, saved = (owners(names) for names in (mixture_parameters(model.backbone.model), parts["mixture"]))
    if strangers := sorted(saved - there):
        raise ValueError(f"unknown expert {strangers[0]!r} in the weights: this model's experts are {sorted(there)}")
    if parts["mixture"] and (missing := sorted(there - saved)):
        raise ValueError(f"the weights have no expert {missing[0]!r}: they hold {sorted(saved)}")
    load_mixture(model.backbone.model, parts["mixture"])
    for what, own in (("buffer", mixture_buffers(model)), ("head", model.tasks.state_dict())):
        given = parts[what]
        wrong = [name for name in own.keys() | given.keys() if name not in own or name not in given or own[name].shape != given[name].shape]
        if wrong:
            raise ValueError(f"{what} tensors that are missing, unknown or of another shape: {sorted(wrong)[:8]}")
        for name, tensor in own.items():
            tensor.copy_(given[name])


def owners(names: Iterable[str]) -> set[str]:
    """Whose the banks' tensors of these names are: experts, or what a bank calls that which they share."""
    return {name.rpartition(".")[2] for name in names if ".bank." in name}


def mixture_buffers(model: UnifiedModel) -> Tensors:
    """What banks and routers keep besides their parameters."""
    found: Tensors = {}
    for layer in mixtures(model.backbone.model):
        for part in ("bank", "router"):
            found |= {f"{layer.layer}.{part}.{name}": buffer for name, buffer in getattr(layer, part).named_buffers()}
    return found


def backbone_state(model: UnifiedModel) -> Tensors:
    """The backbone's own tensors under the names that it had before experts were put beside its layers."""
    layers = [layer.layer for layer in mixtures(model.backbone.model)]
    found: Tensors = {}
    for name, tensor in model.backbone.model.state_dict().items():
        layer = next((layer for layer in layers if name.startswith(f"{layer}.")), None)
        if layer is None:
            found[name] = tensor
        elif name.startswith(f"{layer}.linear."):
            found[f"{layer}.{name.removeprefix(f'{layer}.linear.')}"] = tensor
    return found


def unchanged(model: UnifiedModel) -> bool:
    """Whether the backbone's weights are still those that its name stands for, bit for bit; False where the name leads nowhere."""
    try:
        reference, _ = load_model(model.spec.backbone, model.spec.precision)
    except ConfigError:
        return False
    own, there = backbone_state(model), reference.state_dict()
    return own.keys() == there.keys() and all(torch.equal(tensor.cpu(), there[name]) for name, tensor in own.items())


def fingerprint(model: UnifiedModel, task: str | None = None) -> str:
    """sha256 (hex) of all that decides the model's vectors and scores: what an index or a cache compares to know it again.

    Backbone, mixture and heads (their tensors), plan, tasks, tokenizer, prompts, pooling, normalisation, lengths, dimensions.
    With `task`, only what that task's passes use: a further expert for another task does not change it. Raises KeyError for
    a task that the model does not do.
    """
    spec, tokens = model.spec.to_dict(), model.tokens
    tasks = tuple(model.tasks)
    seen = model.spec.plan.roster(tasks).visible(tasks if task is None else (task,))
    kept = tasks if task is None else (task,)
    plan = {
        **spec["plan"],
        "experts": [each for each in spec["plan"]["experts"] if each["name"] in seen],
        "sees": dict.fromkeys(kept, seen),
    }
    state = {name: tensor for name, tensor in state_of(model).items() if task is None or used(name, task, seen, tasks, spec)}
    parts = {"backbone": sha256_of(backbone_state(model)), "state": sha256_of(state)}
    parts["tokenizer"] = json.dumps(tokenizer_state(tokens.tokenizer))
    parts |= {"plan": json.dumps(plan if task else spec["plan"], sort_keys=True), "prompts": json.dumps(spec["prompts"], sort_keys=True)}
    parts["tasks"] = json.dumps({name: spec["tasks"][name] for name in kept}, sort_keys=True)
    parts |= {"pooling": model.backbone.pooling, "normalisation": "unit length", "dimensions": str(model.width)}
    parts |= {"lengths": f"{tokens.max_length}, {tokens.pair_length}, {tokens.query_length}"}
    parts |= {"both_ways": ", ".join(spec["both_ways"])} if spec["both_ways"] else {}
    return digest_of(parts)


def used(name: str, task: str, seen: Collection[str], tasks: Collection[str], spec: Mapping[str, Any]) -> bool:
    """Whether a tensor of `state_of` takes part in a task's passes: not another task's head or bias, nor an expert that it does not see."""
    if name.startswith("head."):
        return name.startswith(f"head.{task}.")
    last = name.rpartition(".")[2]
    owner, _, expert = last.rpartition(">")
    owner = owner.partition("/")[0]
    if owner and owner in tasks and owner != task:
        return False
    return expert in seen or expert not in {each["name"] for each in spec["plan"]["experts"]}


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_state(tokenizer: Any) -> Any:
    """All that decides how a tokenizer cuts text, as JSON; not what its last call left behind."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
        return {"vocabulary": sorted(tokenizer.get_vocab().items()), "special": special}
    state = json.loads(fast.to_str())
    return {key: value for key, value in state.items() if key not in ("truncation", "padding")}
