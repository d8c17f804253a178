"""What a trial's model begins as: the bare backbone with fresh experts, or a trained model, as it is or grown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from twofold.config import BackboneConfig, TrialConfig
from twofold.data.mixing import ExampleSource
from twofold.errors import ConfigError
from twofold.methods import Batches, Member
from twofold.model import folder as folders
from twofold.model.build import build_model
from twofold.model.grow import Growth
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel
from twofold.prompts import prompts_of

FREE = {"precision", "attention", "gradient_checkpointing"}
"""Settings of the backbone that a trial may choose although it starts from a saved model."""

Options = Mapping[str, Mapping[str, Any]]


def with_start(config: TrialConfig) -> TrialConfig:
    """The config with the backbone settings of the model that it starts from; as it is where it starts from none.

    Raises ConfigError for a setting that contradicts the model's: its older vectors and scores would be others.
    """
    if config.start is None:
        return config
    spec = ModelSpec.from_dict(folders.read_config(folders.locate(config.start))["spec"])
    known = {"name": spec.backbone, **{key: getattr(spec, key) for key in BackboneConfig.model_fields if hasattr(spec, key)}}
    own = config.backbone
    asked = own.model_dump(include=own.model_fields_set)
    if {"template", "instruction", "prompts"} & asked.keys():
        asked["prompts"] = prompts_of(own.template, own.instruction, own.prompts)
    for key, value in asked.items():
        if key not in FREE and value != known.get(key, value):
            raise ConfigError(f"backbone.{key} = {value!r}, but {config.start} has {known[key]!r}: leave it out, or start from no model")
    merged = {**known, **{key: value for key, value in asked.items() if key in FREE}}
    return config.model_copy(update={"backbone": BackboneConfig.model_validate(merged)})


def spec_of(config: TrialConfig, member: Member, options: Options = {}) -> ModelSpec:  # noqa: B006 (read only)
    """The model that a member of the method trains, where it starts from none. `options`: of tasks, where the config says nothing."""
    backbone = config.backbone
    return ModelSpec(
        backbone=backbone.name,
        tasks=task_options(config, member, options),
        plan=member.plan,
        pooling=backbone.pooling,
        attention=backbone.attention,
        precision=backbone.precision,
        max_length=backbone.max_length,
        pair_length=backbone.pair_length,
        query_length=backbone.query_length,
        both_ways=member.both_ways,
        prompts=prompts_of(backbone.template, backbone.instruction, backbone.prompts),
        seed=config.seed,
    )


def task_options(config: TrialConfig, member: Member, options: Options) -> dict[str, dict[str, Any]]:
    """Task → options of its `build`, for the member's tasks: the data's, the method's, and the config's, of which the last counts most."""
    own = (*member.serves, *member.learns)
    return {task: {**options.get(task, {}), **member.options.get(task, {}), **config.tasks[task].options} for task in own}


def first_model(config: TrialConfig, member: Member, options: Options, device: torch.device, batches: Batches) -> UnifiedModel:
    """A member's model before its first step. Raises ConfigError where the model that it starts from has no place for it."""
    if config.start is None:
        model = build_model(spec_of(config, member, options), device)
    else:
        growth = Growth(member.plan, task_options(config, member, options), member.beside)
        model = folders.load(config.start, device, precision=config.backbone.precision, growth=growth)
    if member.before is not None:
        member.before(model, batches)
    return model


def batches_of(config: TrialConfig, sources: Mapping[str, ExampleSource]) -> Batches:
    """The batches of the training for what only looks at them: the same in every process, whatever their number."""

    def batch(task: str, step: int) -> Sequence[Any]:
        return sources[task].batch(task, step, config.tasks[task].batch, config.tasks[task].negatives, config.seed)

    return batch


def mining_model(config: TrialConfig, device: torch.device) -> UnifiedModel:
    """The embedder that finds hard negatives: the model that the trial starts from, else the backbone without experts."""
    if config.start is not None:
        return folders.load(config.start, device, precision=config.backbone.precision)
    return build_model(replace(spec_of(config, Member("bare", (), ())), tasks={"retrieve": {}}), device)
