"""The house keeps its own rules (layers, cycles, sizes, names, README's tree), and each rule sees what it is there to see."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import architecture
from tests.architecture import RULES, Tree

REPOSITORY = Tree(Path(__file__).parents[1])
Rule = Callable[[Tree], Iterator[str]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    complaints = list(rule(REPOSITORY))
    assert not complaints, "\n" + "\n".join(complaints)


def test_readme_lists_the_files_on_disk() -> None:
    if not (REPOSITORY.root / "README.md").is_file():
        pytest.skip("there is no README.md yet")
    complaints = list(architecture.readme_layout(REPOSITORY))
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.filterwarnings("default")
def test_long_files_are_mentioned() -> None:
    """Shown in pytest's summary; no failure."""
    for complaint in architecture.long_files(REPOSITORY):
        warnings.warn(complaint, stacklevel=1)


# Each rule on a small tree that breaks it, and on one that does not.


def tree(tmp_path: Path, **sources: str) -> Tree:
    """A tree of modules: `core__layer="..."` is src/twofold/core/layer.py, `core__="..."` its `__init__`, `top="..."` the package's."""
    for name, source in sources.items():
        parts = ["__init__"] if name == "top" else [part or "__init__" for part in name.split("__")]
        path = (tmp_path / "src" / "twofold").joinpath(*parts).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return Tree(tmp_path)


LONG = "def f():\n" + "    x = 1\n" * 49

BROKEN: list[tuple[Rule, dict[str, str], str]] = [
    (
        architecture.layers,
        {"data__sources": "from twofold.ranking import Bm25", "ranking": ""},
        "sources.py:1: data imports ranking, which is not below it",
    ),
    (architecture.layers, {"data": "import twofold.train", "train": ""}, "data imports train"),
    (architecture.layers, {"data": "def f():\n    from twofold import train", "train": ""}, "data.py:2: data imports train"),
    (architecture.layers, {"data": "if TYPE_CHECKING:\n    from twofold.train import fit", "train": ""}, "data.py:2: data imports train"),
    (architecture.layers, {"data": "try:\n    pass\nexcept E:\n    import twofold.train", "train": ""}, "data.py:4: data imports train"),
    (architecture.layers, {"records": "from twofold import load", "top": "def load(): ..."}, "records imports twofold, which"),
    (architecture.layers, {"lounge": ""}, "'lounge' has no row"),
    (architecture.plugin_siblings, {"routers__a": "from twofold.routers.b import f", "routers__b": ""}, "imports its sibling routers.b"),
    (
        architecture.plugin_siblings,
        {"routers__": "from twofold.routers import b", "routers__b": ""},
        "__init__.py:1: a file of routers imports",
    ),
    (
        architecture.plugin_siblings,
        {"search__stores__a": "from twofold.search.stores import b", "search__stores__b": ""},
        "its sibling search.stores.b",
    ),
    (architecture.cycles, {"data__a": "import twofold.data.b", "data__b": "from twofold.data.a import f"}, "import cycle: data."),
    (
        architecture.cycles,
        {"data__": "from twofold.ranking import f", "ranking": "from twofold.data.a import f", "data__a": ""},
        "import cycle: ",
    ),
    (architecture.core_is_small_and_pure, {"core__a": "import numpy as np"}, "core/ imports numpy"),
    (architecture.core_is_small_and_pure, {"routers__a": "from twofold.errors import E", "errors": ""}, "routers/ imports twofold.errors"),
    (architecture.core_is_small_and_pure, {"core__a": "x = 1\n" * 300, "banks__lora": "x = 1\n" * 200}, "the core has 500 lines"),
    (architecture.file_sizes, {"data__a": "x = 1\n" * 400}, "data/a.py: 400 lines"),
    (architecture.long_files, {"data__a": "x = 1\n" * 300}, "data/a.py: 300 lines"),
    (architecture.function_sizes, {"data__a": LONG}, "a.py:1: f has 50 lines"),
    (architecture.function_sizes, {"data__a": "class A:\n    async " + LONG.replace("\n", "\n    ")}, "a.py:2: f has 50 lines"),
    (architecture.names, {"data__text_utils": ""}, "'utils' says nothing"),
    (architecture.names, {"common__a": ""}, "'common' says nothing"),
    (architecture.tests_mirror, {"data__a": "x = 1"}, "data/a.py: has no tests/data/test_a.py"),
    (architecture.tests_mirror, {"cli": "x = 1"}, "cli.py: has no tests/test_cli.py"),
    (architecture.tests_mirror, {"methods__": '"""Doc."""\nx = 1'}, "methods/__init__.py: has no tests/methods/test_init.py"),
    (architecture.forbidden, {"data__a": "import torch\nx = torch.load('a')"}, "a.py:2: torch.load"),
    (architecture.forbidden, {"data__a": "from torch import load"}, "a.py:1: torch.load"),
    (architecture.forbidden, {"data__a": "def f():\n    import pickle"}, "a.py:2: imports pickle"),
    (architecture.forbidden, {"data__a": "f(trust_remote_code=True)"}, "a.py:1: trust_remote_code"),
    (architecture.forbidden, {"data__a": "f(trust_remote_code=x)"}, "a.py:1: trust_remote_code"),
    (architecture.forbidden, {"data__a": "print(1)"}, "a.py:1: prints"),
]

SOUND: list[tuple[Rule, dict[str, str]]] = [
    (architecture.layers, {"data__a": "from twofold.records import Query\nfrom twofold.data.b import f", "data__b": "", "records": ""}),
    (architecture.layers, {"cli": "from twofold.train import fit", "train": "from twofold.model import M", "model": ""}),
    (
        architecture.layers,
        {"top": "def load():\n    from twofold.model import load", "model": ""},
    ),
    (
        architecture.plugin_siblings,
        {"methods__a": "from twofold.methods import M\nfrom twofold.methods._base import B", "methods__": "", "methods___base": ""},
    ),
    (architecture.plugin_siblings, {"core__layer": "from twofold.core.routing import R", "core__routing": ""}),
    (architecture.cycles, {"data__a": "import twofold.data.b", "data__b": "def f():\n    import twofold.data.a"}),
    (architecture.cycles, {"data__a": "import twofold.data.b", "data__b": "if TYPE_CHECKING:\n    import twofold.data.a"}),
    (architecture.cycles, {"data__": "from twofold.data.a import f", "data__a": "from twofold.data.b import f", "data__b": ""}),
    (
        architecture.core_is_small_and_pure,
        {"core__a": "import math\nimport torch.nn\nfrom torch import Tensor\nimport twofold.core.b", "core__b": ""},
    ),
    (
        architecture.core_is_small_and_pure,
        {"routers__a": "from twofold.routers import f\nfrom twofold.core.a import g", "routers__": "", "core__a": ""},
    ),
    (architecture.file_sizes, {"data__a": "x = 1\n" * 399}),
    (architecture.function_sizes, {"data__a": LONG.replace("    x = 1\n", "", 1)}),
    (architecture.tests_mirror, {"data__": '"""Doc."""\nfrom __future__ import annotations\n'}),
    (
        architecture.forbidden,
        {"cli": "print(1)", "data__a": "json.load(f)\nlog.print()\nf(trust_remote_code=False)\nfrom torch import Tensor"},
    ),
]


@pytest.mark.parametrize(("rule", "sources", "complaint"), BROKEN, ids=[f"{rule.__name__}-{n}" for n, (rule, _, _) in enumerate(BROKEN)])
def test_a_rule_sees_what_breaks_it(tmp_path: Path, rule: Rule, sources: dict[str, str], complaint: str) -> None:
    (only,) = rule(tree(tmp_path, **sources))
    assert complaint in only


@pytest.mark.parametrize(("rule", "sources"), SOUND, ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(SOUND)])
def test_a_rule_leaves_sound_code_alone(tmp_path: Path, rule: Rule, sources: dict[str, str]) -> None:
    assert list(rule(tree(tmp_path, **sources))) == []


def test_a_test_file_at_the_same_place_is_enough(tmp_path: Path) -> None:
    small = tree(tmp_path, data__a="x = 1", methods___base="x = 1", cli="x = 1")
    for name in ("data/test_a.py", "methods/test_base.py", "test_cli.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).touch()
    assert list(architecture.tests_mirror(small)) == []


@pytest.mark.parametrize(
    ("block", "complaints"),
    [
        ("cli.py — commands\ndata/ — reading\ndata/a.py — a\ntests/ — the same tree", []),
        ("src/twofold/cli.py — commands\ndata/a.py   — a\n\n", []),
        ("cli.py — commands", ["data/a.py exists and is not listed"]),
        ("cli.py — commands\ndata/a.py — a\ndata/b.py — b", ["data/b.py is listed and does not exist"]),
        ("cli.py — commands\ndata/a.py — a\nnowhere/ — b", ["nowhere/ is listed and does not exist"]),
        ("cli.py — commands\ndata/a.py", ["'data/a.py' is not of the form"]),
        ("cli.py — commands\ncli.py — commands\ndata/a.py — a", ["cli.py is listed twice"]),
    ],
)
def test_readmes_tree_is_compared_both_ways(tmp_path: Path, block: str, complaints: list[str]) -> None:
    small = tree(tmp_path, data__a="", data__='"""Doc."""', cli="")
    (tmp_path / "tests").mkdir()
    (tmp_path / "README.md").write_text(f"# X\n```sh\nother\n```\n## Layout\nWords.\n\n```text\n{block}\n```\n## More\n```\nother\n```\n")
    found = list(architecture.readme_layout(small))
    assert len(found) == len(complaints)
    assert all(complaint in line for complaint, line in zip(complaints, found, strict=True))


def test_a_readme_without_a_tree_is_seen(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# X\n## Layout\nWords.\n## Other\n```\ncli.py — x\n```\n")
    assert list(architecture.readme_layout(tree(tmp_path, cli=""))) == ["README.md: no fenced block below the heading '## Layout'"]
