"""The documents' code is run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from twofold import plugins
from twofold.core.routing import Roster

ROOT = Path(__file__).resolve().parents[1]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def test_the_router_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to a file of its own and named by its dotted path, as the page says."""
    (tmp_path / "lean_pkg").mkdir()
    (tmp_path / "lean_pkg" / "__init__.py").write_text("")
    (tmp_path / "lean_pkg" / "lean.py").write_text(blocks("docs/add-a-router.md", "python")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    roster = Roster(("embedding", "shared"), {"retrieve": ("embedding", "shared"), "rerank": ("shared",)})
    router = plugins.build_plugin(
        "routers", "lean_pkg.lean", {"favourite": "shared"}, d_in=8, roster=roster, tasks=("retrieve", "rerank"), seed=0, key="x"
    )
    assert router.constant("rerank", ("embedding", "shared")).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="no expert"):
        plugins.build_plugin(
            "routers", "lean_pkg.lean", {"favourite": "nobody"}, d_in=8, roster=roster, tasks=("retrieve", "rerank"), seed=0, key="x"
        )


def test_readme_commands_name_what_exists() -> None:
    """Every `twofold COMMAND` and every config that README names is there."""
    text = (ROOT / "README.md").read_text()
    listed = subprocess.run(
        [sys.executable, "-c", "from twofold.cli import main; main()", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in set(re.findall(r"^twofold (\w+)", text, flags=re.MULTILINE)):
        assert command in listed, command
    for config in set(re.findall(r"configs/[\w/.-]+\.toml", text)):
        assert (ROOT / config).is_file(), config
    for link in set(re.findall(r"\]\(([\w/.-]+)\)", text)):
        assert (ROOT / link).is_file(), link
