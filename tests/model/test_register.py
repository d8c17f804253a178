"""Transformers knows our model_type after `import twofold`, in whatever order the two are imported; each in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.conftest import MakeModel
from twofold.model import folder

OPEN = "print(type(AutoModel.from_pretrained(sys.argv[1])).__name__)"
FIRST = "from transformers import AutoModel"


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The code in a fresh Python."""
    return subprocess.run([sys.executable, "-c", f"import sys; {code}", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def saved(make_model: MakeModel, tmp_path: Path) -> str:
    folder.save(make_model(), tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    "imports",
    [
        f"{FIRST}; import twofold",
        f"import twofold.model.hub; {FIRST}",
        f"import twofold.backbone.packed; {FIRST}",
    ],
)
def test_every_order_of_imports(saved: str, imports: str) -> None:
    done = run(f"{imports}; {OPEN}", saved)
    assert done.stdout.strip() == "TwofoldModel", done.stderr


def test_sentence_transformers_after_twofold_and_nothing_stays_behind(saved: str) -> None:
    """Looking for transformers is not yet loading it; and once it is loaded, it is as it always was."""
    look = "import importlib.util as u; print(u.find_spec('transformers') is not None, 'transformers' in sys.modules)"
    left = "print(sum('twofold' in type(f).__module__ for f in sys.meta_path), type(transformers.__spec__.loader).__name__)"
    done = run(f"import twofold; {look}; import sentence_transformers, transformers; {FIRST}; {OPEN}; {left}", saved)
    assert done.stdout.split() == ["True", "False", "TwofoldModel", "0", "SourceFileLoader"], done.stderr


def test_without_twofold_transformers_says_what_it_misses(saved: str) -> None:
    done = run(f"{FIRST}; {OPEN}", saved)
    assert done.returncode != 0 and "ValueError" in done.stderr and "model type `twofold`" in done.stderr


def test_importing_twofold_loads_neither_torch_nor_transformers() -> None:
    done = run("import twofold; print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr
