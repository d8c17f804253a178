"""Only one has a lock; whoever dies lets go of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from twofold.study.locks import held, owner

HOLDER = """
import sys, time
from pathlib import Path
from twofold.study.locks import held
with held(Path(sys.argv[1])):
    print("has it", flush=True)
    time.sleep(60)
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.lock"
    with held(path) as first, held(path) as second:
        assert first and not second and owner(path) is not None and owner(path)["pid"] == os.getpid()  # type: ignore[index]
    assert owner(path) is None and owner(tmp_path / "never.lock") is None
    with held(path) as again:
        assert again


def test_several_may_share_and_keep_out_who_wants_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with held(path, shared=True) as first:
        with held(path, shared=True) as second, held(path) as alone:
            assert first and second and not alone
        with held(path) as alone:
            assert not alone and owner(path)["pid"] == os.getpid()  # type: ignore[index]
    assert owner(path) is None
    with held(path) as alone, held(path, shared=True) as late:
        assert alone and not late


def test_a_killed_owner_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], env=environment, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"has it\n"
    with held(path) as mine:
        assert not mine
    assert owner(path)["pid"] == child.pid  # type: ignore[index]
    child.send_signal(signal.SIGKILL)
    child.wait()
    with held(path, wait=True) as mine:
        assert mine
    child.stdout.close()
