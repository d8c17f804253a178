"""The folder is the list; names and options that do not exist are refused with the nearest that do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from twofold import plugins
from twofold.errors import ConfigError

SOUP = '''"""Soup, hot.

More about soup.
"""
from __future__ import annotations
from typing import TYPE_CHECKING

def build(*, salt: float = 1.0) -> float:
    return salt
'''

STEW = '''"""Stew of the day."""
from __future__ import annotations

def build(*, width: int, salt: float = 1.0, herbs: tuple[str, ...] = (), hot: bool = True, cook: str | None = None) -> dict[str, object]:
    return {"width": width, "salt": salt, "herbs": herbs, "hot": hot, "cook": cook}
'''

NEEDY = '''"""Needs to be told."""

def build(*, rank: int) -> int:
    return rank
'''

GREEDY = '''"""Takes everything."""

def build(**everything: object) -> dict[str, object]:
    return everything
'''

LATE = '''"""Types for the checker only."""
from __future__ import annotations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nowhere import Thing

def build(*, thing: Thing, salt: float = 1.0) -> object:
    return thing, salt
'''


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A family `kitchen` of five plug-ins beside one private file, in a package that stands in for twofold."""
    family = tmp_path / "twofold" / "kitchen"
    family.mkdir(parents=True)
    (family / "__init__.py").write_text('"""Dishes."""\n')
    sources = {
        "stew": STEW,
        "soup": SOUP,
        "needy": NEEDY,
        "greedy": GREEDY,
        "late": LATE,
        "_base": "raise ImportError\n",
        "silent": "x = 1\n",
    }
    for name, source in sources.items():
        (family / f"{name}.py").write_text(source)
    import twofold

    monkeypatch.setattr(plugins, "ROOT", tmp_path / "twofold")
    monkeypatch.setattr(twofold, "__path__", [*twofold.__path__, str(tmp_path / "twofold")])
    yield family
    for name in [name for name in sys.modules if name.startswith("twofold.kitchen")]:
        del sys.modules[name]


def test_names_are_the_files_without_private_ones(kitchen: Path) -> None:
    assert plugins.names("kitchen") == ["greedy", "late", "needy", "silent", "soup", "stew"]


def test_a_new_file_is_a_new_plugin(kitchen: Path) -> None:
    (kitchen / "salad.py").write_text('"""Cold."""\ndef build() -> str:\n    return "salad"\n')
    assert "salad" in plugins.names("kitchen")
    assert plugins.build_plugin("kitchen", "salad", {}) == "salad"


def test_unknown_family_names_the_nearest(kitchen: Path) -> None:
    with pytest.raises(ConfigError, match="unknown plug-in family 'kitchn'; did you mean 'kitchen'"):
        plugins.names("kitchn")


def test_unknown_name_names_the_nearest_and_all(kitchen: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown name in kitchen 'stev'; did you mean 'stew'\? There is: greedy, .*stew"):
        plugins.load("kitchen", "stev")


@pytest.mark.parametrize("name", ["_base", "__init__", "../records", "kitchen/stew", ""])
def test_private_files_and_paths_are_no_names(kitchen: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        plugins.load("kitchen", name)


def test_describe_reads_without_importing(kitchen: Path) -> None:
    (kitchen / "broken.py").write_text('"""Needs what is not installed."""\nimport nowhere_to_be_found\n')
    rows = dict(plugins.describe("kitchen"))
    assert rows["soup"] == "Soup, hot."
    assert rows["broken"] == "Needs what is not installed."
    assert rows["silent"] == ""


def test_a_dotted_name_is_anybodys_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_dishes").mkdir()
    (tmp_path / "acme_dishes" / "__init__.py").write_text("")
    (tmp_path / "acme_dishes" / "pie.py").write_text(
        "def build(*, width: int, slices: int = 8) -> tuple[int, int]:\n    return width, slices\n"
    )
    (tmp_path / "acme_dishes" / "torn.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.build_plugin("routers", "acme_dishes.pie", {"slices": 6}, width=2) == (2, 6)
    with pytest.raises(ConfigError, match="no module 'acme_dishes.cake'"):
        plugins.load("routers", "acme_dishes.cake")
    with pytest.raises(ConfigError, match="no module 'acme'"):
        plugins.load("routers", "acme.cake")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        plugins.load("routers", "acme_dishes.torn")


def test_build_receives_options_and_what_it_asks_for(kitchen: Path) -> None:
    dish = plugins.build_plugin("kitchen", "stew", {"salt": 2, "herbs": ["bay"], "cook": "Ann"}, width=3, unasked=object())
    assert dish == {"width": 3, "salt": 2.0, "herbs": ("bay",), "hot": True, "cook": "Ann"}
    assert isinstance(dish["salt"], float)


def test_unknown_option_names_the_nearest(kitchen: Path) -> None:
    with pytest.raises(ConfigError, match=r"kitchen 'stew': unknown option 'slat'; did you mean 'salt'\? There is: cook, herbs, hot, salt"):
        plugins.build_plugin("kitchen", "stew", {"slat": 1.0}, width=1)


def test_an_option_cannot_replace_what_the_program_gives(kitchen: Path) -> None:
    with pytest.raises(ConfigError, match="'width' is set by the program"):
        plugins.build_plugin("kitchen", "stew", {"width": 9}, width=1)


def test_a_missing_option_is_named(kitchen: Path) -> None:
    with pytest.raises(ConfigError, match="'rank' has no default"):
        plugins.build_plugin("kitchen", "needy", {})


@pytest.mark.parametrize(
    "chosen", [{"salt": "much"}, {"salt": "1"}, {"herbs": "bay"}, {"hot": 1}, {"cook": 3}, {"salt": None}, {"salt": object()}]
)
def test_an_option_of_the_wrong_type_is_refused_with_its_value(kitchen: Path, chosen: dict[str, Any]) -> None:
    (key,) = chosen
    with pytest.raises(ConfigError, match=f"kitchen 'stew': option {key} = "):
        plugins.build_plugin("kitchen", "stew", chosen, width=1)


def test_kwargs_take_everything(kitchen: Path) -> None:
    assert plugins.build_plugin("kitchen", "greedy", {"a": 1}, width=2) == {"a": 1, "width": 2}


def test_types_that_exist_for_the_checker_only_are_not_checked(kitchen: Path) -> None:
    assert plugins.build_plugin("kitchen", "late", {"salt": "much"}, thing=1) == (1, "much")


def test_a_module_without_build_is_refused(kitchen: Path) -> None:
    with pytest.raises(ConfigError, match=r"silent.py offers no build"):
        plugins.build_plugin("kitchen", "silent", {})


@pytest.mark.parametrize("family", ["banks", "routers", "tasks", "methods"])
def test_the_real_families_are_there(family: str) -> None:
    assert plugins.names(family)
    assert all(line for _, line in plugins.describe(family))
