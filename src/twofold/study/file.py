"""A study's file: arms × data × backbones × seeds over one set of trial settings, with a sweep of learning rates before the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, PrivateAttr, ValidationError, model_validator

from twofold import toml
from twofold.complaints import complaints
from twofold.config import MethodConfig, Section
from twofold.errors import ConfigError
from twofold.nearest import unknown

Table = dict[str, JsonValue]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class About(Section):
    """What the study asks and how it decides."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """The name of its folder of results."""
    title: str
    """What it asks, in one sentence."""
    question: int | None = Field(None, ge=1, le=9)
    """Which of the nine questions it answers; "none": it is further evidence."""
    beside: str = ""
    """What makes it smaller than the study that answers its question, in a few words: its own answer is then told below that one, and
    decides nothing."""
    waits: str = ""
    """Why it was not run at scale, if it was not."""
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    """Seeds of every cell."""
    tested: str | None = None
    """The arm that the rule is about; "none": the study has no such arm."""
    rivals: list[str] = Field(default_factory=list)
    """The arms that it must beat, each of them, for the rule to say yes."""
    margin: float = Field(0.01, gt=0)
    """A tie is a 90 % interval inside plus or minus this, in nDCG@10."""
    keep: bool = False
    """Keep the trained models after their cells are written, for probes that come later."""
    checkpoints: bool = False
    """Keep the checkpoints of a trial as long as its model, for probes that look at its training."""


class SweepConfig(Section):
    """Learning rates tried on dev before the seeds, the same for every arm that learns."""

    lr: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)
    """The values; none: every arm takes the rate of [base]."""
    seed: int = 0
    """The seed of the sweep. Where it is one of the study's, its best trial is that seed's cell and is not trained again."""
    keys: list[str] = Field(default_factory=lambda: ["optim.lr"])
    """The settings that a value is written to."""


class MeasureConfig(Section):
    """What every cell is measured on."""

    queries: int = Field(1000, ge=1)
    """Test queries of dense retrieval, over the whole (sub-)corpus; all where there are fewer."""
    rerank_queries: int = Field(300, ge=1)
    """Of these, so many are reranked: the first by the hash of their ids."""
    depth: int = Field(20, ge=1)
    """BM25's so many candidates of each, the same for all arms."""
    pipeline_depth: int = Field(20, ge=0)
    """So many of an arm's own candidates are reranked for its pipeline; 0 leaves the pipeline out."""
    dev_queries: int = Field(100, ge=1)
    """Dev queries, which choose the learning rate; BM25's candidates are reranked there too."""
    dev_depth: int = Field(20, ge=1)
    """The dev sub-corpus: the positives, and BM25's so many documents of each query."""


class DataSpec(Section):
    """What an arm learns from and is measured on."""

    train: list[str] = Field(min_length=1)
    """Datasets to train on."""
    test: list[str] | None = None
    """Datasets to measure on; "none": those of `train`."""
    documents: int | None = Field(None, ge=1)
    """A fixed sub-corpus of so many documents, with everything that is relevant to a query; "none": the whole corpus."""
    train_queries: int | None = Field(None, ge=1)
    """So many training queries; "none": all."""
    arms: list[str] | None = None
    """Only these arms; "none": all."""
    settings: Table = Field(default_factory=dict)
    """Settings of a trial that differ here."""

    @property
    def tests(self) -> list[str]:
        """Where it is measured."""
        return self.test or self.train


class ArmConfig(Section):
    """One way of training, or of using what another arm has trained."""

    what: str
    """One line for the report."""
    method: MethodConfig
    """A method and its options."""
    tasks: list[str] | None = None
    """Only these of the trial's tasks, such as a specialist's, or variants of them (`retrieve:new`); "none": all."""
    start: str | None = None
    """The arm whose trained model of the same data, backbone and seed it begins from."""
    sweep: bool = True
    """Whether its learning rate is swept; an arm that trains nothing never is."""
    data: list[str] | None = None
    """Only with these data; "none": with all that name it."""
    seeds: list[int] | None = None
    """Only these seeds; for what no seed moves."""
    settings: Table = Field(default_factory=dict)
    """Settings of a trial that differ here."""


class CompareConfig(Section):
    """One comparison, A − B, decided as studies/README.md says."""

    what: str
    """What it tests, as a sentence that is true where A is better."""
    a: str | dict[str, str]
    """An arm, or row → arm."""
    b: str | dict[str, str]
    """An arm, or row → arm."""
    rows: list[str] = Field(default_factory=lambda: ["dense", "rerank"])
    """Of dense, rerank, pipeline, classify."""
    tests: list[str] | None = None
    """Only on these test sets."""
    decides: bool = True
    """Whether it is part of the study's answer, or stands beside it."""

    def arm(self, side: str, row: str) -> str | None:
        """The arm of a side in a row."""
        given = self.a if side == "a" else self.b
        return given if isinstance(given, str) else given.get(row)


class ProbeConfig(Section):
    """A probe that runs on the model of every cell, or of some arms' cells."""

    name: str
    """A file of probes/."""
    arms: list[str] | None = None
    """Only for these arms."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the probe."""


class Study(Section):
    """The whole file."""

    study: About
    """What it asks."""
    sweep: SweepConfig = SweepConfig()
    """Learning rates."""
    measure: MeasureConfig = MeasureConfig()
    """Measuring."""
    base: Table = Field(default_factory=dict)
    """Settings of every trial, as in a trial's own file."""
    backbones: dict[Name, Table] = Field(min_length=1)
    """Settings that make a backbone, by a short name: one line for one more."""
    data: dict[Name, DataSpec] = Field(min_length=1)
    """What is learnt from, by a short name."""
    arms: dict[Name, ArmConfig] = Field(min_length=1)
    """The ways of training, by a short name."""
    compare: list[CompareConfig] = Field(default_factory=list)
    """Comparisons."""
    probes: list[ProbeConfig] = Field(default_factory=list)
    """Probes of the trained models."""
    _learning: dict[tuple[str, str], bool] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _stands_beside_something(self) -> Study:
        """What stands beside an answer says which."""
        if self.study.beside and self.study.question is None:
            raise ValueError("study.beside needs study.question: the number of the question whose answer it stands beside")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> Study:
        """Every arm or dataset that is named somewhere is one."""
        about = self.study
        named = [*about.rivals, *([about.tested] if about.tested else [])]
        named += [arm for spec in self.data.values() for arm in spec.arms or []]
        named += [arm.start for arm in self.arms.values() if arm.start] + [arm for probe in self.probes for arm in probe.arms or []]
        for side in (side for each in self.compare for side in (each.a, each.b)):
            named += [side] if isinstance(side, str) else side.values()
        for name in named:
            if name not in self.arms:
                raise ValueError(unknown("arm", name, self.arms))
        for name in (name for arm in self.arms.values() for name in arm.data or []):
            if name not in self.data:
                raise ValueError(unknown("data", name, self.data))
        return self


def read(path: str | Path) -> Study:
    """The study in a TOML file. Raises ConfigError naming the file, the key and the nearest valid one."""
    return make(toml.read(Path(path)), str(path))


def make(values: Mapping[str, Any], where: str = "study") -> Study:
    """The study in a table. Raises ConfigError as `read` does."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        if any(not detail["loc"] for detail in error.errors()):
            raise ConfigError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
        raise ConfigError("\n".join(complaints(error, Study, where, {}))) from error
