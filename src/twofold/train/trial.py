"""A trial: data, negatives, one `fit` per member of the method, the interpolation weight from dev, and the saved folder.

    trials/NAME/config.toml                     what was asked for
    trials/NAME/members/MEMBER/log.jsonl        one line per optimiser step
    trials/NAME/members/MEMBER/checkpoints/     two generations
    trials/NAME/model/                          the result; it exists only when the trial is done
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from twofold import plugins, provenance
from twofold.backbone.memory import keep_freed_memory
from twofold.config import TrialConfig
from twofold.data.mixing import ExampleSource, Mixture, TrainingSet, title_pairs
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import ConfigError
from twofold.methods import Member, Method
from twofold.mining import Mined, interleave, mine
from twofold.model import folder as folders
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.ranking import Bm25
from twofold.train.dev import DevSet
from twofold.train.loop import LoopState, Progress, fit
from twofold.train.watch import MemberWatch

log = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """What a trial learns from, and the dev set that it looks at."""

    sources: Mapping[str, ExampleSource]
    dev: DevSet | None
    datasets: tuple[str, ...]


def run_trial(
    config: TrialConfig,
    folder: Path,
    *,
    resume: bool = False,
    say: Say = lambda _: None,
    progress: Callable[[str, Progress], None] = lambda *_: None,
    datasets: Mapping[str, Dataset] | None = None,
) -> System:
    """Trains what `config` says in `folder` and returns the system, saved as `folder/model`.

    A finished trial is opened and returned as it is. Raises ConfigError if the folder holds another trial, or an
    unfinished one and `resume` is not set. `datasets` gives datasets by the name that the config calls them.
    """
    device = prepare(config)
    accelerator = Accelerator(cpu=device == "cpu")
    _claim(config, folder, resume)
    if (folder / "model").is_dir():
        say(f"{folder / 'model'} is there already")
        return folders.load_system(folder / "model", device=accelerator.device)
    method: Method = plugins.build_plugin("methods", config.method.name, config.method.options, tasks=tuple(config.tasks))
    begun = time.monotonic()
    models: dict[str, UnifiedModel] = {}
    states: dict[str, LoopState] = {}
    data: Data | None = None
    for member in method.members:
        model = build_model(spec_of(config, member), accelerator.device)
        if data is None:
            data = prepare_data(config, model, say, datasets or {}, needed=bool(member.stages))
        if member.stages:
            say(f"training {member.name}: {', '.join(stage.name for stage in member.stages)}")
            watch = MemberWatch(folder / "members" / member.name, model, member, config, data.sources, data.dev, accelerator, resume)
            state = watch.start()
            if config.backbone.gradient_checkpointing:
                model.backbone.gradient_checkpointing(True)
            states[member.name] = fit(model, member, data.sources, config.tasks, config.optim, config.seed, accelerator, state, watch.hooks(lambda p, name=member.name: progress(name, p)))
            watch.finish()
        for task in member.serves:
            models[task] = model
    assert data is not None
    system = System(models.get("retrieve", model), models.get("rerank", model), 0.0 if "rerank" not in models else 0.5)
    facts = facts_of(config, method, models, states, data, time.monotonic() - begun)
    if data.dev is not None and {"retrieve", "rerank"} <= models.keys():
        weight, scores = data.dev.tune(system)
        say(f"weight of the pair score, tuned on dev: {weight:.2f} ({', '.join(f'{name} {value:.3f}' for name, value in scores.items())})")
        system = System(system.embedder, system.reranker, weight)
        facts["dev"] = {name: round(value, 6) for name, value in scores.items()}
    for model in system.models:
        model.rerank_weight = system.rerank_weight
    if accelerator.is_main_process:
        folders.save_system(system, folder / "model", facts=facts)
    accelerator.wait_for_everyone()
    return system


def prepare(config: TrialConfig) -> str:
    """Threads, memory and device of this process; returns "cpu" or "cuda"."""
    keep_freed_memory()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda': torch sees no GPU here; use device = \"cpu\" or \"auto\"")
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


def spec_of(config: TrialConfig, member: Member) -> ModelSpec:
    """The model that a member of the method trains."""
    backbone = config.backbone
    return ModelSpec(
        backbone=backbone.name,
        tasks={task: dict(config.tasks[task].options) for task in member.serves},
        plan=member.plan,
        pooling=backbone.pooling,
        attention=backbone.attention,
        precision=backbone.precision,
        max_length=backbone.max_length,
        pair_length=backbone.pair_length,
        query_length=backbone.query_length,
        prompts=dict(backbone.prompts),
        seed=config.seed,
    )


def prepare_data(config: TrialConfig, model: UnifiedModel, say: Say, given: Mapping[str, Dataset], *, needed: bool) -> Data:
    """Opens the datasets, mines negatives (cached on disk), and puts the sources of every task together."""
    opened = {name: given.get(name) or open_dataset(name, config.data.on_error, config.data.graded) for name in config.data.train}
    first = config.data.dev or config.data.train[0]
    dev_dataset = opened.get(first) or given.get(first) or open_dataset(first, config.data.on_error)
    dev = DevSet.of(dev_dataset, config.dev.queries, config.dev.depth) if "dev" in dev_dataset.splits else None
    if dev is None:
        say(f"{first} has no dev split: no early stopping, and the pair score weighs one half")
    sets, titles = [], []
    for name, dataset in opened.items() if needed else ():
        for kind, count in dataset.skipped.items():
            say(f"{name}: skipped {count} × {kind}")
        mined = mine_negatives(config, dataset, model, say)
        sets.append(TrainingSet(dataset, mined.negatives))
        if config.data.title_pairs:
            titles.append(title_pairs(dataset))
    if not needed:
        return Data({}, dev, tuple(opened))
    judged: ExampleSource = sets[0] if len(sets) == 1 else Mixture(sets)
    share = config.data.title_pairs
    with_titles = Mixture([judged, titles[0] if len(titles) == 1 else Mixture(titles)], [1 - share, share]) if 0 < share < 1 else judged
    return Data({task: with_titles if task == "retrieve" else judged for task in config.tasks}, dev, tuple(opened))


def mine_negatives(config: TrialConfig, dataset: Dataset, model: UnifiedModel, say: Say) -> Mined:
    """Hard negatives of the train split by BM25 and by the backbone without experts, taken in turns."""
    asked = config.data.negatives
    found = []
    if asked.bm25_depth:
        say(f"{dataset.name}: hard negatives from BM25's top {asked.bm25_depth}")
        found.append(mine(dataset, bm25=Bm25(dataset.corpus), depth=asked.bm25_depth, rank_range=(asked.skip_top, asked.bm25_depth)))
    if asked.model_depth:
        say(f"{dataset.name}: hard negatives from the backbone's top {asked.model_depth} of {len(dataset.corpus)} documents")
        bare = build_model(replace(spec_of(config, Member("bare", ("retrieve",), ())), tasks={"retrieve": {}}), model.backbone.device)
        margin = None if asked.margin is None else 1 - asked.margin
        found.append(
            mine(
                dataset,
                encode_queries=bare.encode_queries,
                encode_documents=bare.encode_documents,
                model=folders.fingerprint(bare),
                depth=asked.model_depth,
                rank_range=(asked.skip_top, asked.model_depth),
                margin=margin,
            )
        )
    return found[0] if len(found) == 1 else interleave(*found) if found else Mined.of({})


def facts_of(config: TrialConfig, method: Method, models: Mapping[str, UnifiedModel], states: Mapping[str, LoopState], data: Data, seconds: float) -> dict[str, Any]:
    """What a result or a model card may say about how the system was made; nothing that was not measured or set."""
    groups = {task: {group: sum(p.numel() for _, p in members) for group, members in model.groups().items()} for task, model in models.items()}
    unique = {id(model): model for model in models.values()}.values()
    trained = sum(p.numel() for model in unique for p in model.parameters() if p.requires_grad)
    trained_by_task = {task: sum(p.numel() for p in model.parameters() if p.requires_grad) for task, model in models.items()}
    steps = {task: states[member.name].step for member in method.members if member.name in states for task in member.serves}
    return {
        "name": config.name,
        "method": method.name,
        "options": dict(config.method.options),
        "config": config.model_dump(mode="json"),
        "train": {
            "steps": steps,
            "data": {task: source.sha256 for task, source in data.sources.items()},
            "datasets": list(data.datasets),
            "batch": {task: settings.batch for task, settings in config.tasks.items()},
            "negatives": {task: settings.negatives for task, settings in config.tasks.items()},
            "lr": {part: config.optim.rate(part) for part in ("experts", "router", "heads", "backbone")},  # type: ignore[arg-type]
            "seed": config.seed,
            "tokens": sum(state.tokens for state in states.values()),
            "seconds": round(seconds, 1),
            "parameters": {"total": sum(sum(p.numel() for p in model.parameters()) for model in unique), "trainable": trained, "active": trained_by_task},
        }
        if steps
        else None,
        "parameters": groups,
        "environment": provenance.environment(),
    }


def _claim(config: TrialConfig, folder: Path, resume: bool) -> None:
    """Makes the folder this trial's. Raises ConfigError if it is another's, or an unfinished one's and `resume` is not set."""
    path = folder / "config.toml"
    if path.is_file():
        if path.read_text() != config.to_toml():
            raise ConfigError(f"{path} holds other settings: choose another name, or remove {folder}")
        if not resume and not (folder / "model").is_dir():
            raise ConfigError(f"{folder} holds an unfinished trial: go on with --resume, or remove it")
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(config.to_toml())
