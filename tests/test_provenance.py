"""Provenance: facts that a number depends on, and nothing about whose machine it was."""

from __future__ import annotations

import getpass
import json
import platform
import subprocess
from pathlib import Path

import pytest

from twofold import provenance


def test_environment_is_json_and_complete() -> None:
    facts = json.loads(json.dumps(provenance.environment()))
    assert set(facts) == {"python", "platform", "cpu", "threads", "accelerators", "versions", "commit", "dirty", "date"}
    assert facts["cpu"]["cores"] >= 1
    assert facts["threads"] >= 1
    assert facts["versions"]["numpy"]
    assert set(facts["cpu"]["flags"]) <= set(provenance.FLAGS)


def test_nobody_is_named() -> None:
    text = json.dumps(provenance.environment())
    assert str(Path.home()) not in text
    assert str(Path(__file__).parent) not in text
    for private in (platform.node(), getpass.getuser()):
        assert f'"{private}"' not in text


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_dirty_of_our_own_checkout(tmp_path: Path) -> None:
    package = tmp_path / "src" / "twofold"
    package.mkdir(parents=True)
    (package / "a.py").write_text("x = 1\n")
    assert provenance.checkout(package) == {"commit": None, "dirty": None}
    git(tmp_path, "init", "--quiet")
    assert provenance.checkout(package) == {"commit": None, "dirty": None}
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    clean = {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "new.json").write_text("{}")
    assert provenance.checkout(package) == clean
    (package / "a.py").write_text("x = 2\n")
    assert provenance.checkout(package) == {**clean, "dirty": True}


def test_somebody_elses_repository_is_not_ours(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    package = tmp_path / "venv" / "lib" / "site-packages" / "twofold"
    package.mkdir(parents=True)
    assert provenance.checkout(package) == {"commit": None, "dirty": None}


def test_threads_follow_the_environment_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(provenance.sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert provenance.environment()["threads"] == 3


def test_a_carried_copy_is_told_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_COMMIT", "0" * 40)
    assert provenance.checkout(tmp_path / "src" / "twofold") == {"commit": "0" * 40, "dirty": False}
    assert provenance.checkout(Path(provenance.__file__).parent)["commit"] != "0" * 40, "a real checkout knows better"
