"""The documents' code is run as it stands there: every fenced block of every page of docs/, by the rules of tests/doc_pages.py."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doc_pages import ROOT, Broken, Reader, blocks, first_missing
from twofold import plugins
from twofold.core.routing import Roster

PAGES = sorted((ROOT / "docs").glob("*.md"))
NOT_RUN: dict[tuple[str, str], str] = {}
"""(page, first line of a block) → why it is not run. An entry that matches no block is an error."""


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Reads a page from its first block to its last."""

    def read(page: Path) -> None:
        reader = Reader(tmp_path, monkeypatch)
        try:
            for block in blocks(page):
                if (page.name, block.text.partition("\n")[0]) not in NOT_RUN:
                    reader.read(block)
        finally:
            reader.close()

    return read


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_every_block_of_the_page_works(page: Path, follow: Callable[[Path], None]) -> None:
    follow(page)


def test_what_is_not_run_is_there() -> None:
    there = {(page.name, block.text.partition("\n")[0]) for page in PAGES for block in blocks(page)}
    assert NOT_RUN.keys() <= there, f"no such block: {sorted(NOT_RUN.keys() - there)}"


def test_the_router_of_the_docs_leans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to a file of its own and named by its dotted path, as the page says."""
    (code,) = (block.text for block in blocks(ROOT / "docs" / "add-a-router.md") if block.language == "python")
    (tmp_path / "lean_pkg").mkdir()
    (tmp_path / "lean_pkg" / "__init__.py").write_text("")
    (tmp_path / "lean_pkg" / "lean.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    roster = Roster(("embedding", "shared"), {"retrieve": ("embedding", "shared"), "rerank": ("shared",)})
    given = {"d_in": 8, "roster": roster, "tasks": ("retrieve", "rerank"), "seed": 0, "key": "x"}
    router = plugins.build_plugin("routers", "lean_pkg.lean", {"favourite": "shared"}, **given)
    assert router.constant("rerank", ("embedding", "shared")).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="no expert"):
        plugins.build_plugin("routers", "lean_pkg.lean", {"favourite": "nobody"}, **given)


GOOD = """# A page
```bash
mkdir -p deep && cd deep
export WORD=carried
```
```console
$ echo "one   $WORD"; pwd; echo three
one carried
…/deep
…
three
$ false # exit 1
$ twofold methods | \\
  grep hard_lora
hard_lora…
$ twofold train nowhere # exit 2
twofold: no dataset 'nowhere'…
```
```python title="script.py"
import sys, twofold
print(sys.argv[1], twofold.__name__)
```
```console
$ cd .. && python script.py hello && python -c "print(1 + 1)" && python3 - <<< "print('read')"
hello twofold
2
read
```
```python
from pathlib import Path
here = Path("script.py").exists()
```
```python
# mine/module.py
raise SystemError("a file is not run")
```
```python
assert here and Path("mine/module.py").is_file()
```
```python
# src/twofold/methods/mine.py
\"\"\"A method of the page.\"\"\"
from twofold.methods.shared_lora import build
```
```toml
[method]
name = "mine"
```
```bash
twofold methods | grep "A method of the page"
```
```python
# tests/methods/test_mine.py
def test_it():
    from twofold import plugins
    assert "mine" in plugins.names("methods")
```
```json
{"a": 1}
```
```jsonl
{"query": "one", "positive": "two"}
```
```text
anything
```
"""


def test_a_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(GOOD.replace('\\"', '"'))
    (tmp_path / "reader").mkdir()
    reader = Reader(tmp_path / "reader", monkeypatch)
    for block in blocks(tmp_path / "page.md"):
        reader.read(block)
    reader.close()
    assert "twofold.methods.mine" not in sys.modules


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```bash\necho before\nno-such-command\n```", "page.md:4: block 1 (bash): ended with 127\n    before"),
        ("```bash\ntwofold routers --nothing\n```", "ended with 2"),
        ("```console\n$ echo one\ntwo\n```", "page.md:4: 'echo one' did not say 'two'"),
        ("```console\n$ true\n$ false\n```", "page.md:5: 'false' ended with 1, not 0"),
        ("```console\nno command\n```", "a console block begins with a line"),
        ("```python\nx = 1\nassert x == 2, 'it is 1'\n```", "page.md:4: block 1 (python): AssertionError: it is 1"),
        ("```toml\n[method]\nname = 'nobody'\n```", "unknown name in methods 'nobody'"),
        ("```toml\n[optim]\nstepz = 1\n```", "did you mean 'optim.steps'"),
        ("```toml\n[method]\noptions = { router = 'nobody' }\n```", "unknown name in routers 'nobody'"),
        ("```json\n{'a': 1}\n```", "JSONDecodeError"),
        ('```jsonl\n{"query": "one"}\n```', 'no "positive"'),
        ("```fortran\nEND\n```", "nobody runs 'fortran'"),
        ('```text title="../x"\n\n```', "outside of the page's folder"),
        ("```python\n# src/twofold/routers/soft.py\n```", "is a file of Twofold already"),
        ("```python\n", "is not closed"),
    ],
)
def test_a_broken_page_says_where(block: str, said: str, tmp_path: Path, follow: Callable[[Path], None]) -> None:
    (tmp_path / "page.md").write_text(f"# A page\n\n{block}\n")
    with pytest.raises(Broken, match=re.escape(said)):
        follow(tmp_path / "page.md")


def test_expected_lines_are_found_in_order() -> None:
    said = "a  1\nb 2.5 s\n\nc"
    assert first_missing(["a 1", "", "…", "b … s", "c"], said) is None
    assert first_missing(["b 2.5 s", "a 1"], said) == "a 1"
    assert first_missing(["b 2"], said) == "b 2"
    assert first_missing(["c", "c"], said) == "c"


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
