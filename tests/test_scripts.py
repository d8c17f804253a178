"""scripts/check and .ci/run, each in a small tree of its own: what they run, in which environment, and what they say of a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PASSING = "echo '41 passed, 1 skipped in 3.21s'"
FAKE_CHECK = """#!/usr/bin/env bash
python -c 'import sys; print(sys.prefix)' > prefix.txt
printf '%s' "$HF_HUB_OFFLINE" > offline.txt
echo '9 passed in 0.10s'
"""
README = """# X
```sh
exit 77 # the first block
```
<!-- test-command:begin -->
```sh
COMMAND
```
<!-- test-command:end -->
```sh
exit 78 # a later block
```
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script with a closed standard input."""
    kept = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run([script], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=kept | environment, check=False)


def tree(tmp_path: Path, readme: str, check: str = FAKE_CHECK) -> Path:
    """A small repository; returns its .ci/run."""
    repository = tmp_path / "repository with a space"
    (repository / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", repository / ".ci" / "run")
    executable(repository / "scripts" / "check", check)
    (repository / "README.md").write_text(readme)
    return repository / ".ci" / "run"


def readme(command: str) -> str:
    return README.replace("COMMAND", command)


def ci(tmp_path: Path, script: Path) -> subprocess.CompletedProcess[str]:
    """`.ci/run` with its temporary folder below tmp_path, and a Python that leaves pip out of its environments, which saves seconds."""
    (tmp_path / "temporary").mkdir()
    venv = f'#!/usr/bin/env bash\nif [ "$2" = venv ]; then set -- -m venv --without-pip "$3"; fi\nexec "{sys.executable}" "$@"\n'
    return run(script, PYTHON=str(executable(tmp_path / "python", venv)), TMPDIR=str(tmp_path / "temporary"))


def test_ci_runs_readmes_command_then_the_check_in_one_fresh_environment(tmp_path: Path) -> None:
    script = tree(tmp_path, readme(f"python -c 'import sys; print(sys.prefix)' > first.txt && read -r line || true\n{PASSING}"))
    done = ci(tmp_path, script)
    assert done.returncode == 0, done.stdout + done.stderr
    repository = script.parents[1]
    prefix = (repository / "first.txt").read_text().strip()
    assert prefix == (repository / "prefix.txt").read_text().strip()
    assert prefix.startswith(str(tmp_path / "temporary"))
    assert (repository / "offline.txt").read_text() == "1"
    assert done.stdout.endswith(".ci/run: tests: 41 passed, 1 skipped in 3.21s\n.ci/run: passed\n")
    assert not list((tmp_path / "temporary").iterdir())
    assert sorted(path.name for path in repository.iterdir()) == [".ci", "README.md", "first.txt", "offline.txt", "prefix.txt", "scripts"]


@pytest.mark.parametrize(
    ("command", "check", "closing"),
    [
        ("true && (echo '1 failed, 2 passed in 1.00s'; exit 3)", FAKE_CHECK, "tests: 1 failed, 2 passed in 1.00s\n.ci/run: failed (3)\n"),
        ("false && " + PASSING, FAKE_CHECK, "tests: no closing line\n.ci/run: failed (1)\n"),
        (PASSING, FAKE_CHECK + "exit 4\n", "tests: 41 passed, 1 skipped in 3.21s\n.ci/run: failed (4)\n"),
    ],
)
def test_ci_fails_where_a_part_fails(tmp_path: Path, command: str, check: str, closing: str) -> None:
    done = ci(tmp_path, tree(tmp_path, readme(command), check))
    assert done.returncode != 0
    assert done.stdout.endswith(closing)
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    "text", ["# X\n```sh\nexit 0\n```\n", "<!-- test-command:begin -->\n<!-- test-command:end -->\n```sh\nexit 0\n```\n"]
)
def test_ci_fails_without_a_command_in_the_readme(tmp_path: Path, text: str) -> None:
    done = ci(tmp_path, tree(tmp_path, text))
    assert done.returncode == 2
    assert "README.md has no command between" in done.stderr


FAKE_PYTHON = """#!/usr/bin/env bash
echo "$*" >> calls.txt
case "$*" in *" $FAIL"*) exit 1 ;; esac
"""


def check_tree(tmp_path: Path) -> Path:
    """scripts/check beside a Python that writes down what it is asked to run."""
    executable(tmp_path / "python", FAKE_PYTHON)
    (tmp_path / "scripts").mkdir()
    return Path(shutil.copy(ROOT / "scripts" / "check", tmp_path / "scripts" / "check"))


def test_check_runs_every_tool_of_the_given_python(tmp_path: Path) -> None:
    done = run(check_tree(tmp_path), PYTHON=str(tmp_path / "python"), FAIL="nothing")
    assert done.returncode == 0
    assert (tmp_path / "calls.txt").read_text().splitlines() == [
        "-m ruff check",
        "-m ruff format --check",
        "-m mypy --strict src",
        "-m pytest -q tests/test_architecture.py",
    ]
    assert done.stdout.endswith("scripts/check: all is well\n")


def test_check_goes_on_after_a_failure_and_names_it(tmp_path: Path) -> None:
    done = run(check_tree(tmp_path), PYTHON=str(tmp_path / "python"), FAIL="mypy")
    assert done.returncode == 1
    assert done.stderr == "scripts/check: failed: types\n"
    assert len((tmp_path / "calls.txt").read_text().splitlines()) == 4


def test_both_are_executable() -> None:
    assert os.access(ROOT / "scripts" / "check", os.X_OK)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
