"""What a method trains and costs, counted on a backbone of random weights with the shapes of MiniLM-L6: nothing is trained or downloaded.

Six layers of 384 features, inner size 1,536, 30,522 words. FLOPs are those that torch counts in one forward pass of 128 tokens
(https://docs.pytorch.org/docs/stable/generated/torch.utils.flop_counter.FlopCounterMode.html), less the bare backbone's.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from twofold import plugins
from twofold.config import TrialConfig
from twofold.core.inject import LayerPlan, mixtures
from twofold.methods import Member, Method
from twofold.model import folder as folders
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.records import Example
from twofold.train.facts import Trained, count_parameters
from twofold.train.stages import trained
from twofold.train.start import first_model
from twofold.train.trial import method_of

TASKS = ("retrieve", "rerank")
TOKENS = 128
WORDS = 30_522
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SOURCE = re.compile(r"arXiv (\d{4}\.\d{4,5})")


@contextmanager
def counting() -> Iterator[Callable[[str], dict[str, Any]]]:
    """Gives a function from a method's name to its costs; the backbone is written to a folder once and removed at the end."""
    bars: Any = transformers_logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            backbone = _write_backbone(folder / "backbone")
            bare = build_model(ModelSpec(backbone, {task: {} for task in TASKS}, plan=LayerPlan()))
            base = {task: flops(bare, task) for task in TASKS}
            yield lambda name: costs(name, backbone, base, folder)
    finally:
        if shown:
            bars.enable_progress_bar()


def costs(name: str, backbone: str, base: Mapping[str, int], folder: Path) -> dict[str, Any]:
    """The facts of one method at its default options, as JSON types. Raises ConfigError for a method that does not exist."""
    config = _config(name, backbone, folder)
    method = method_of(config)
    parts = [_made(config, member) for member in method.members]
    models = {task: part.model for part in parts for task in part.member.serves}
    extra = {task: flops(models[task], task) - base[task] for task in models}
    return {
        "line": dict(plugins.describe("methods")).get(name, ""),
        "source": [f"arXiv:{each}" for each in _SOURCE.findall(plugins.load("methods", name).__doc__ or "")],
        "starts_from": getattr(plugins.load("methods", name), "NEEDS_START", False) or None,
        "members": [_member(member) for member in method.members],
        "parameters": {"backbone": sum(p.numel() for p in _group(parts[0].model, "backbone")), **count_parameters(parts)},
        "extra_flops_per_token": {task: round(each / TOKENS) for task, each in extra.items()},
        "flops_over_bare": {task: round(1 + each / base[task], 4) for task, each in extra.items()},
        "folds": {task: folds(models[task], task) for task in models},
        "counted_on": f"random weights: 6 layers of 384, {WORDS} words; one text of {TOKENS} tokens",
    }


def folds(model: UnifiedModel, task: str) -> bool | None:
    """Whether the task's routing is constant in every layer, so that its experts merge into the weights; None where it has none."""
    layers = list(mixtures(model.backbone.model))
    return all(layer.router.constant(task, layer.roster.visible((task,))) is not None for layer in layers) if layers else None


def flops(model: UnifiedModel, task: str) -> int:
    """FLOPs of one forward pass of a task over TOKENS tokens, in which every router decides anew."""
    tokens = model.tokens.with_lengths(TOKENS, TOKENS)
    text = "a " * (2 * TOKENS)
    pack = tokens.texts([text]) if task == "retrieve" else tokens.pairs([("a " * 8, text)])
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _product})
    model.eval()
    with torch.no_grad():  # not inference mode: a cache that is made under the counter would be left behind
        model.backbone(pack, task)  # what is cached in eval is made
        with counter:
            model.backbone(pack, task)
    return int(counter.get_total_flops())


def _product(added: Sequence[int], a: Sequence[int], b: Sequence[int], **_: Any) -> int:  # noqa: ARG001
    """FLOPs of adding a product in place, by shapes: torch's counter knows only the product that makes a new tensor."""
    return 2 * a[0] * a[1] * b[1]


def _made(config: TrialConfig, member: Member) -> Trained:
    """A member before its first step, and what its stages would train; with the change that it makes at the end."""
    model = first_model(config, member, {}, torch.device("cpu"), _examples)
    learnt = trained(model, member) if member.stages else {}
    model.retire(member.learns)
    if member.after is not None:
        member.after(model.eval(), _examples)
    return Trained(member, model, None, learnt)


def _config(name: str, backbone: str, folder: Path) -> TrialConfig:
    """A trial of the method at its defaults. Where it goes on from a trained model, one of that kind is made, without training it."""
    module = plugins.load("methods", name)
    tasks: dict[str, Any] = {task: {} for task in (*TASKS, *getattr(module, "LEARNS", ()))}
    values: dict[str, Any] = {
        "name": "costs",
        "device": "cpu",
        "method": {"name": name},
        "backbone": {"name": backbone},
        "data": {"train": ["none"]},
        "tasks": tasks,
    }
    needed = getattr(module, "NEEDS_START", False)
    if needed:
        values["start"] = _start(needed if isinstance(needed, str) else "moe_lora", backbone, folder)
    return TrialConfig.model_validate(values)


def _start(kind: str, backbone: str, folder: Path) -> str:
    """The folder of an untrained model of a method, whose experts are random so that none is like another."""
    made = folder / f"start-{kind}"
    if not made.is_dir():
        config = _config(kind, backbone, folder)
        method: Method = method_of(config)
        model = first_model(config, method.members[0], {}, torch.device("cpu"), _examples)
        draw = torch.Generator().manual_seed(0)
        for group, members in model.groups().items():
            for _, parameter in members if group.startswith("expert:") else ():
                parameter.data.add_(torch.randn(parameter.shape, generator=draw) * 0.02)
        folders.save(model.eval(), made, facts={"method": kind})
    return str(made)


def _examples(task: str, step: int) -> Sequence[Example]:  # noqa: ARG001
    """Made-up queries with a positive and a negative."""
    return [Example(f"q{step}-{i}", "a " * (4 + i), (f"p{i}", f"n{i}"), ("a " * (20 + i), "a " * 30), (1.0, 0.0)) for i in range(4)]


def _group(model: UnifiedModel, name: str) -> list[torch.nn.Parameter]:
    return [parameter for _, parameter in model.groups().get(name, [])]


def _member(member: Member) -> dict[str, Any]:
    """A member as JSON types: what it serves and its stages, in order."""
    stages = [{"name": each.name, "tasks": list(each.tasks), "trains": list(each.trains), "share": each.share} for each in member.stages]
    return {"name": member.name, "serves": list(member.serves), "stages": stages}


def _write_backbone(folder: Path) -> str:
    """The backbone and a tokenizer of few words, as transformers saves them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(vocab_size=WORDS, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*_SPECIAL, "a"))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    made: Any = PreTrainedTokenizerFast
    made(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)
    return str(folder)
