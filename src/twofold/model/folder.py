"""The saved folder: one model (or a system of two) that Twofold, sentence-transformers and transformers open alike.

    config.json            what transformers reads; under "twofold": the spec, the backbone's sha256, the canary
    model.safetensors      experts, routers, heads
    backbone/              the backbone's own weights, where they were trained; else it is found by its name
    tokenizer…, modules.json, 1_Pooling/, config_sentence_transformers.json, sentence_bert_config.json
    README.md, facts.json  the model card, and the facts that it was made from
    manifest.json          the sha256 of every file

Only JSON, text and safetensors are written, and only those are opened: no pickle, no code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from twofold.backbone.load import DTYPES, load_model, weights_sha256
from twofold.backbone.precision import AUTO, fastest
from twofold.checkpoint import MANIFEST, Manifest, load_tensors, save_tensors, verify, write_folder
from twofold.errors import CheckpointError, ConfigError
from twofold.model import builtin, proof
from twofold.model.build import assemble
from twofold.model.card import card, system_card
from twofold.model.engine import TORCH, check_engine, use_engine
from twofold.model.grow import Growth, fill, grown
from twofold.model.spec import ModelSpec
from twofold.model.state import backbone_state, fingerprint, load_state, state_of, unchanged
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.model.views import CONFIG, MODEL_TYPE, readable, write_json, write_views
from twofold.tasks import form_of

__all__ = ["fingerprint", "load", "load_system", "read_facts", "save", "save_system"]

log = logging.getLogger(__name__)

FORMAT = 1
WEIGHTS, BACKBONE, FACTS, SYSTEM = "model.safetensors", "backbone", "facts.json", "system.json"
EXTRAS = (".gitattributes", ".gitignore", ".DS_Store")
"""What a hub or a file manager adds."""
SUFFIXES = {".json", ".safetensors", ".txt", ".md", ".model", ".jinja"}
"""Kinds of file that a folder may hold. `.model` is sentencepiece's, a protocol buffer."""


def save(
    model: UnifiedModel,
    path: str | Path,
    *,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    backbone: str = "auto",
    rerank_weight: float | None = None,
) -> Manifest:
    """Writes a model, all of it or nothing. `facts` make the card; `rerank_weight` replaces the model's own.

    `backbone`: "reference" (its name and sha256), "inside" (its weights), or "auto": inside where they were trained. Raises
    CheckpointError as `write_folder` does, and where a reference would lose what was trained; ValueError for a folded model.
    """
    if backbone not in ("auto", "reference", "inside"):
        raise ValueError(f"backbone {backbone!r}: use 'auto', 'reference' or 'inside'")
    inside = backbone == "inside" or not unchanged(model)
    if inside and backbone == "reference":
        what = f"the weights of {model.spec.backbone!r} were changed, and a reference would lose that"
        raise CheckpointError(f"{path}: {what}; use backbone='inside'")
    state, canary = state_of(model), proof.record(model)

    def write(folder: Path) -> None:
        save_tensors(folder / WEIGHTS, state)
        if inside:
            hub_model: Any = model.backbone.model
            hub_model.save_pretrained(folder / BACKBONE, state_dict=backbone_state(model))
        source = {"inside": inside, "sha256": weights_sha256(str(folder / BACKBONE) if inside else model.spec.backbone)}
        weight = model.rerank_weight if rerank_weight is None else rerank_weight
        facts_here = {"format": FORMAT, "spec": model.spec.to_dict(), "rerank_weight": weight, "backbone": source, "canary": canary}
        facts_here |= {"variant_weights": dict(model.variant_weights)} if model.variant_weights else {}
        write_views(folder, model, facts_here)
        write_json(folder / FACTS, dict(facts or {}))
        (folder / "README.md").write_text(card(model, {"name": Path(path).name, **(facts or {})}), encoding="utf-8")
        readable(folder)

    return write_folder(Path(path), write, overwrite=overwrite)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    backbone: str | None = None,
    precision: str | None = None,
    plugins: Collection[str] = (),
    growth: Growth | None = None,
    engine: str = TORCH,
) -> UnifiedModel:
    """The model of a folder or hub id, in eval mode, proved to be the one that was saved.

    Every file's sha256, the backbone's, and the canary's numbers are compared. `backbone`: where the backbone is now; `precision`:
    instead of the saved one, "auto" for the faster of fp32 and bf16 here (half weights stay half); `plugins`: dotted names of plug-ins of
    your own that the folder may import; `growth`: what is added to the model, which then gives the canary's numbers all the same; `engine`:
    what runs single short queries, see `use_engine`. Raises CheckpointError naming the file, the expert, the plug-in or the backbone that
    is not right, and ConfigError for a precision or an engine that there is not.
    """
    check_engine(engine, device)
    if precision not in (None, AUTO, *DTYPES):
        raise ConfigError(f"precision {precision!r}: use {', '.join(DTYPES)} or {AUTO}")
    folder = locate(path)
    checked(folder)
    config = read_config(folder)
    try:
        spec = ModelSpec.from_dict(config["spec"])
        source, weight, canary = config["backbone"], float(config["rerank_weight"]), config["canary"]
        if precision is not None:
            spec = replace(spec, precision=_faster(spec.precision, device) if precision == AUTO else precision)
        _refuse_foreign(spec, plugins)
        where = str(folder / BACKBONE) if source["inside"] else backbone or spec.backbone
        hub_model, tokenizer = load_model(where, spec.precision, tokenizer=str(folder))
        _compare(where, source["sha256"], weights_sha256(where))
        model = assemble(grown(spec, growth) if growth else spec, hub_model.to(device), tokenizer)
        state = load_tensors(folder / WEIGHTS)
        fill(model, state, growth, spec) if growth else load_state(model, state)
        model.variant_weights = {name: float(each) for name, each in config.get("variant_weights", {}).items()}
        if not all(0 <= each <= 1 for each in (weight, *model.variant_weights.values())):
            raise ValueError(f"rerank_weight {[weight, *model.variant_weights.values()]}: use 0 to 1")
        model.rerank_weight = weight
        model.eval()
        proof.check(model, canary, str(folder))
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError, re.error) as error:
        raise CheckpointError(f"{folder}: {f'no {error} in its config' if isinstance(error, KeyError) else error}") from error
    use_engine(model, engine)
    return model


def _faster(saved: str, device: str | torch.device) -> str:
    """A saved model's own precision where its weights are halved; else the faster of the two that have the same weights."""
    return saved if DTYPES[saved] != torch.float32 else fastest(str(device))


def save_system(
    system: System, path: str | Path, *, facts: Mapping[str, Any] | None = None, overwrite: bool = False, backbone: str = "auto"
) -> Manifest:
    """Writes one model as `save` does, or two as the folders `embedder` and `reranker` beside a system.json."""
    if len(system.models) == 1:
        return save(system.embedder, path, facts=facts, overwrite=overwrite, backbone=backbone, rerank_weight=system.rerank_weight)
    named = {"name": Path(path).name, **(facts or {})}
    members = {"embedder": system.embedder, "reranker": system.reranker}

    def write(folder: Path) -> None:
        for name, model in members.items():
            own = {**named, "name": f"{named['name']}/{name}"}
            save(model, folder / name, facts=own, backbone=backbone, rerank_weight=system.rerank_weight)
        write_json(folder / SYSTEM, {"format": FORMAT, "members": list(members), "rerank_weight": system.rerank_weight})
        write_json(folder / FACTS, dict(facts or {}))
        (folder / "README.md").write_text(system_card(list(members), named), encoding="utf-8")

    return write_folder(Path(path), write, overwrite=overwrite)


def load_system(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    precision: str | None = None,
    plugins: Collection[str] = (),
    engine: str = TORCH,
) -> System:
    """The system of a folder of one model, or of two, of which the first gets the `engine`. Raises as `load` does."""
    folder = locate(path)

    def member(at: Path, engine: str = TORCH) -> UnifiedModel:
        return load(at, device, precision=precision, plugins=plugins, engine=engine)

    if not (folder / SYSTEM).is_file():
        return System.of(member(folder, engine))
    checked(folder)
    try:
        found = _read(folder / SYSTEM)
        if found["format"] != FORMAT or found["members"] != ["embedder", "reranker"]:
            raise CheckpointError(f"{folder / SYSTEM}: format {found['format']!r} of {found['members']!r}: for another version of Twofold")
        weight = float(found["rerank_weight"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / SYSTEM}: not a system: {type(error).__name__}: {error}") from error
    return System(member(folder / "embedder", engine), member(folder / "reranker"), weight)


def read_facts(path: str | Path) -> dict[str, Any]:
    """The facts that a model or a system was saved with."""
    return _read(locate(path) / FACTS)


def locate(path: str | Path, **hub: Any) -> Path:
    """The folder of a path, of "builtin", or of a hub id's snapshot, downloaded if need be. Raises CheckpointError where there is none.

    `hub`: revision, token, cache_dir, local_files_only.
    """
    if str(path) == builtin.NAME and not Path(path).is_dir():
        return builtin.builtin_folder()
    if isinstance(path, str) and "/" not in path and not Path(path).exists():
        raise CheckpointError(f"{path}: no such folder; the weights inside the package are called {builtin.NAME!r}")
    if Path(path).is_dir() or not isinstance(path, str) or path.count("/") != 1:
        return Path(path)
    try:
        return Path(snapshot_download(path, **hub))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: no such folder, and not to be had from the hub: {str(error).splitlines()[0]}") from error


def manifest_sha256(path: str | Path) -> str:
    """What a saved folder is known by: the sha256 of its manifest, which has every file's. Raises CheckpointError where there is none."""
    try:
        return hashlib.sha256((locate(path) / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: not a saved model: {error}") from error


def still_there(start: Mapping[str, Any]) -> bool:
    """Whether the model that another one started from (its facts' "start") lies where it lay, unchanged."""
    try:
        return manifest_sha256(start["path"]) == str(start["manifest"])
    except CheckpointError:
        return False


def checked(folder: Path) -> Manifest:
    """`verify`, and no file of a kind that could hold code. Raises CheckpointError naming the first that is not right."""
    manifest = verify(folder, extras=EXTRAS)
    for name in manifest.files:
        if Path(name).suffix not in SUFFIXES:
            raise CheckpointError(f"{folder / name}: a saved model holds {', '.join(sorted(SUFFIXES))} and nothing else")
    return manifest


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says under "twofold". Raises CheckpointError if it is another's, or of a format of another version."""
    if (folder / SYSTEM).is_file():
        raise CheckpointError(f"{folder}: holds a system of two models; open it with twofold.load_system, or one of its two folders")
    config = _read(folder / CONFIG)
    if config.get("model_type") != MODEL_TYPE or not isinstance(config.get(MODEL_TYPE), dict):
        raise CheckpointError(f"{folder / CONFIG}: model_type {config.get('model_type')!r}, and not a model saved by Twofold")
    found: dict[str, Any] = config[MODEL_TYPE]
    if found.get("format") != FORMAT:
        raise CheckpointError(f"{folder / CONFIG}: format {found.get('format')!r}, and this version of Twofold reads format {FORMAT}")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def _refuse_foreign(spec: ModelSpec, allowed: Collection[str]) -> None:
    """A dotted plug-in name imports a module; a downloaded folder must not choose which."""
    used = {"bank": spec.plan.bank, "router": spec.plan.router}
    used |= {f"task {name}": name for name in spec.tasks} | {f"form of {name}": form_of(name, own) for name, own in spec.tasks.items()}
    for what, name in used.items():
        if "." in name and name not in allowed:
            raise CheckpointError(f"it asks for the {what} {name!r}, a module of somebody's own; if you trust it: plugins=[{name!r}]")


def _compare(backbone: str, expected: str | None, found: str | None) -> None:
    if expected is None or found is None:
        log.warning("the weights of the backbone %r could not be compared with those that the model was made with", backbone)
    elif expected != found:
        hashes = f"sha256 {found[:12]}…, not {expected[:12]}…"
        raise CheckpointError(f"the backbone {backbone!r} is not the one that the model was made with ({hashes})")
