"""A trial: data, negatives, one `fit` per member of the method, the interpolation weight from dev, and the saved folder.

trials/NAME/config.toml                     what was asked for
trials/NAME/members/MEMBER/log.jsonl        one line per optimiser step
trials/NAME/members/MEMBER/checkpoints/     two generations
trials/NAME/members/MEMBER/best/            the weights that were best on dev, where dev was looked at
trials/NAME/model/                          the result; it exists only when the trial is done
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from twofold import plugins
from twofold.backbone.memory import TRAINING_KERNELS, bound_kernels, keep_freed_memory
from twofold.cache import write_text
from twofold.config import TrialConfig
from twofold.data.labelled import LabelledDataset
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.methods import Member, Method
from twofold.model import folder as folders
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.tasks import kind_of, task_name, variant_of
from twofold.train.facts import Trained, facts_of
from twofold.train.loop import Progress, Setup, fit
from twofold.train.material import Material, Say, prepare_material
from twofold.train.stages import trained
from twofold.train.start import batches_of, first_model, mining_model, with_start
from twofold.train.watch import MemberWatch

ShowProgress = Callable[[str, Progress], None]


def run_trial(
    config: TrialConfig,
    folder: Path,
    *,
    resume: bool = False,
    say: Say = lambda _: None,
    progress: ShowProgress = lambda *_: None,
    datasets: Mapping[str, Dataset | LabelledDataset] | None = None,
) -> System:
    """Trains what `config` says in `folder` and returns the system, saved as `folder/model`.

    A finished trial is opened and returned as it is. Raises ConfigError if the folder holds another trial, or an
    unfinished one and `resume` is not set. `datasets` gives datasets by the name that the config calls them. Under
    `accelerate launch` every process calls this, and the main one writes and talks.
    """
    config = with_start(config)
    accelerator = Accelerator(cpu=prepare(config) == "cpu")
    if accelerator.is_main_process:
        _claim(config, folder, resume)
    else:
        say, progress = lambda _: None, lambda *_: None
    accelerator.wait_for_everyone()
    if (folder / "model").is_dir():
        if folders.read_facts(folder / "model").get("config") != config.model_dump(mode="json"):
            raise ConfigError(f"{folder / 'model'} was trained with other settings: choose another name, or remove {folder}")
        say(f"{folder / 'model'} is there already")
        return folders.load_system(folder / "model", device=accelerator.device)
    begun = time.monotonic()
    method = method_of(config)
    learning = any(member.stages or member.after for member in method.members)  # what is done afterwards may look at batches, too
    with accelerator.main_process_first():  # what is mined or made once is then in the cache
        data = prepare_material(config, lambda: mining_model(config, accelerator.device), say, datasets or {}, learning=learning)
    parts = [train_member(config, member, folder / "members", data, accelerator, resume, say, progress) for member in method.members]
    system, scores = assemble_system(parts, data, say, config.dev.weight == "cautious")
    facts = {**facts_of(config, parts, data, time.monotonic() - begun), **({"dev": scores} if scores else {})}
    if accelerator.is_main_process:
        folders.save_system(system, folder / "model", facts=facts)
    accelerator.wait_for_everyone()
    return system


def prepare(config: TrialConfig) -> str:
    """Threads, memory and device of this process; returns "cpu" or "cuda"."""
    keep_freed_memory()
    bound_kernels(TRAINING_KERNELS)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError('device \'cuda\': torch sees no GPU here; use device = "cpu" or "auto"')
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


def method_of(config: TrialConfig) -> Method:
    """The method with its options. Raises ConfigError if its members do not serve every task of the trial, and only those."""
    needed = getattr(plugins.load("methods", config.method.name), "NEEDS_START", False)
    if config.start is None and needed:
        kind = f" (of {needed!r}, say)" if isinstance(needed, str) else ""
        raise ConfigError(f'method {config.method.name!r} goes on from a trained model{kind}: say which, start = "MODEL" or --from MODEL')
    method: Method = plugins.build_plugin("methods", config.method.name, config.method.options, tasks=tuple(config.tasks))
    own = sorted((*method.serves, *method.learns))
    if own != sorted(config.tasks):
        raise ConfigError(f"method {config.method.name!r} serves {own}, and the trial's tasks are {sorted(config.tasks)}")
    return method


def train_member(
    config: TrialConfig,
    member: Member,
    folder: Path,
    data: Material,
    accelerator: Accelerator,
    resume: bool,
    say: Say,
    progress: ShowProgress,
) -> Trained:
    """Makes a member's model and takes it through its stages, from the newest checkpoint on if there is one."""
    batches = batches_of(config, data.sources)
    model = first_model(config, member, data.options, accelerator.device, batches)
    if not member.stages:
        if member.after is not None:
            member.after(model, batches)
        return Trained(member, model, None)
    say(f"training {member.name}: {', '.join(stage.name for stage in member.stages)}")
    setup = Setup(model, member, data.sources, config.tasks, config.optim, config.seed, accelerator)
    watch = MemberWatch(folder / member.name, setup, config, data.dev, resume)
    state = watch.start()
    if state.step:
        say(f"going on after step {state.step}")
    model.training_tokens = model.tokens.with_lengths(
        min(config.optim.max_length or model.tokens.max_length, model.tokens.max_length),
        min(config.optim.pair_length or model.tokens.pair_length, model.tokens.pair_length),
    )
    model.backbone.gradient_checkpointing(config.backbone.gradient_checkpointing)
    fit(setup, state, watch.hooks(lambda now: progress(member.name, now)))
    watch.finish(state)
    model.retire(member.learns)
    if state.truncated:
        say(f"{member.name}: {state.truncated} texts and pairs were cut while training")
    learnt = trained(model, member)
    if member.after is not None:
        member.after(model, batches)
    return Trained(member, model, state, learnt)


def assemble_system(parts: list[Trained], data: Material, say: Say, cautious: bool = False) -> tuple[System, dict[str, float]]:
    """The members as one system, with the weight of the pair score that is best on dev; and the dev scores, if there are any.

    Where the tasks trained are a variant's (`retrieve:legal`), the variant gets a weight of its own, and the system is the
    model's usual one. A task without a pipeline (`classify`) tunes nothing.
    """
    models = {task: part.model for part in parts for task in part.member.serves}
    scores: dict[str, float] = {}
    for variant in dict.fromkeys(variant_of(task) for task in models if kind_of(task) == "rerank"):
        embedder, reranker = (models.get(task_name(kind, variant)) for kind in ("retrieve", "rerank"))
        if embedder is None or reranker is None or data.dev is None or not data.dev.ranking:
            continue
        weight, found = data.dev.tune(System(embedder, reranker, reranker.rerank_weight, variant), cautious)
        say(f"weight of the pair score, tuned on dev: {weight:.2f} ({rounded(found)})")
        scores |= {task_name(name, variant): round(value, 6) for name, value in found.items()}
        for model in (embedder, reranker):
            if variant:
                model.variant_weights[variant] = weight
            else:
                model.rerank_weight = weight
    for task, model in models.items():
        if kind_of(task) == "answer" and data.dev is not None and data.dev.ranking:
            share, threshold, found = data.dev.tune_answers(model, task)
            say(f"{task}: {share} of the pair score, nothing below {threshold:.2f}, tuned on dev ({rounded(found)})")
            settle(model, task, rerank_share=share, threshold=round(threshold, 4))
            scores |= {name.replace("answer", task): round(value, 6) for name, value in found.items()}
    embedder, reranker = (models.get(kind, parts[0].model) for kind in ("retrieve", "rerank"))
    return System(embedder, reranker, reranker.rerank_weight if "rerank" in reranker.tasks else 0.0), scores


def rounded(scores: Mapping[str, float]) -> str:
    """Scores for people."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def settle(model: UnifiedModel, task: str, **options: float) -> None:
    """Options of a task that are known only after its training: from now on the task's, and saved with the model."""
    for name, value in options.items():
        setattr(model.tasks[task], name, value)
    model.spec = replace(model.spec, tasks={**model.spec.tasks, task: {**model.spec.tasks[task], **options}})


def _claim(config: TrialConfig, folder: Path, resume: bool) -> None:
    """Makes the folder this trial's. Raises ConfigError if it is another's, or an unfinished one's and `resume` is not set."""
    path = folder / "config.toml"
    if path.is_file():
        if path.read_text(encoding="utf-8") != config.to_toml():
            raise ConfigError(f"{path} holds other settings: choose another name, or remove {folder}")
        if not resume and not (folder / "model").is_dir():
            raise ConfigError(f"{folder} holds an unfinished trial: go on with --resume, or remove it")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, config.to_toml())
