"""A study's file: unknown names are errors that say the nearest, and the committed ones are sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.study.conftest import tiny_values
from twofold.errors import ConfigError
from twofold.study.file import make, read
from twofold.study.grid import cells, learns, settings, sweep_of

STUDIES = sorted((ROOT / "studies").glob("*.toml"))
NINE = ("interference", "cure", "routing", "experts", "transfer", "capacity", "cost", "scale", "domain")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_committed_study_can_be_run(path: Path) -> None:
    """Every cell's settings and method are valid, and its starts are arms of the same data."""
    study = read(path)
    assert study.study.name == path.stem and list(cells(study))
    for cell in cells(study):
        start = "a model" if study.arms[cell.arm].start else None
        config = settings(study, cell, start)
        assert config.seed == cell.seed and (not sweep_of(study, cell) or learns(study, cell))
        for name in filter(None, [study.arms[cell.arm].start]):
            assert name in (study.data[cell.data].arms or study.arms)


def test_there_is_one_for_each_of_the_nine_questions_and_the_page_lists_all() -> None:
    studies = {path.stem: read(path) for path in STUDIES}
    assert {studies[name].study.question: name for name in NINE} == dict(enumerate(NINE, start=1))
    page = (ROOT / "studies" / "README.md").read_text()
    assert all(f"({name}.toml)" in page for name in studies)


def test_studies_that_share_cells_say_the_same() -> None:
    """What decides a cell's key is the same in all files but where a study is about it."""
    names = ("interference", "cure", "transfer", "experts", "cost", "capacity")
    common = {name: read(ROOT / "studies" / f"{name}.toml") for name in names}
    first = common["interference"]
    for study in common.values():
        assert (study.base, study.sweep, study.measure, study.backbones) == (first.base, first.sweep, first.measure, first.backbones)
        assert all(arm.method == first.arms[name].method for name, arm in study.arms.items() if name in first.arms)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"study": {"tested": "mo"}}, "did you mean 'moe'"),
        ({"arms": {"mean": {"what": "", "method": {"name": "twin"}, "start": "moee"}}}, "did you mean 'moe'"),
        ({"study": {"titel": "x"}}, "did you mean 'study.title'"),
        ({"measure": {"depth": 0}}, "measure.depth = 0"),
        ({"data": {"made": {"train": ["x"], "arms": ["two"]}}}, "two"),
        ({"compare": [{"what": "", "a": {"dense": "alnoe"}, "b": "one"}]}, "did you mean 'alone'"),
    ],
)
def test_what_is_not_there_is_named(change: dict[str, object], said: str) -> None:
    values = tiny_values(Path("b"), Path("d"))
    for key, table in change.items():
        values[key] = {**values.get(key, {}), **table} if isinstance(table, dict) else table
    with pytest.raises(ConfigError, match=said):
        make(values)


def test_a_file_that_is_none_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[study")
    with pytest.raises(ConfigError, match="a.toml: no valid TOML"):
        read(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="b.toml: No such file"):
        read(tmp_path / "b.toml")
