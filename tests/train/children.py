"""Processes to kill: `python -m tests.train.children` imports everything once and then forks one process per request.

A request is a line of JSON: `config` (a TOML file), `folder`, and optionally `resume`, `die` ([where, n]: the process kills itself
with SIGKILL when it comes there for the n-th time) and `processes` (so many train together, over gloo). The answers are a line
with the processes' ids and, when they have ended, a line with their exit codes (negative: the signal) and what they said.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twofold import config as configs
from twofold.config import TrialConfig
from twofold.train.trial import run_trial

PLACES = {
    "writing": ("twofold.train.state", "_numpy_random"),  # the weights are written and the rest is not
    "sealing": ("twofold.checkpoint", "_seal"),  # everything is written but the manifest
    "moving": ("twofold.checkpoint", "_move_into_place"),  # written, and not yet in its place
    "logging": ("twofold.train.watch", "_line"),  # a step is done and not yet in the log
}
ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class Children:
    """The other end: asks the server for processes, and reads how they fared."""

    def __init__(self, cache: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
        environment |= {"OMP_NUM_THREADS": "1", "TWOFOLD_CACHE": str(cache)}
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.train.children"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def run(self, config: TrialConfig, folder: Path, meanwhile: Callable[[list[int]], None] = lambda _: None, **more: Any) -> list[Any]:
        """[exit code, last words] of each process; `meanwhile` gets their ids while they run."""
        folder.parent.mkdir(exist_ok=True)
        path = folder.parent / f"{folder.name}.toml"
        path.write_text(config.to_toml(), encoding="utf-8")
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps({"config": str(path), "folder": str(folder), **more}) + "\n")
        self.server.stdin.flush()
        meanwhile(self._answer())
        return self._answer()

    def close(self) -> None:
        self.server.communicate(timeout=PATIENCE)

    def _answer(self) -> list[Any]:
        assert self.server.stdout is not None
        ready, _, _ = select.select([self.server.stdout], [], [], PATIENCE)
        assert ready, "the server of children does not answer"
        answer: list[Any] = json.loads(self.server.stdout.readline())
        return answer


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.001)
    return False


def serve() -> None:
    """Reads requests until the input ends."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        size, port = int(request.get("processes", 1)), free_port()
        files = [Path(request["folder"]).parent / f"words-{rank}.txt" for rank in range(size)]
        pids = [fork(request, rank, size, port, file) for rank, file in enumerate(files)]
        answer(pids)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        answer([[code, file.read_text(encoding="utf-8") if file.exists() else ""] for code, file in zip(codes, files, strict=True)])


def fork(request: Mapping[str, Any], rank: int, size: int, port: int, words: Path) -> int:
    """The child's id, in the parent; the child never comes back."""
    words.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # standard output is the server's
        if size > 1:  # what `accelerate launch` sets
            given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({key: str(value) for key, value in given.items()}, ACCELERATE_USE_CPU="true")
        if request.get("die"):
            arm(*request["die"])
        run_trial(configs.read(request["config"]), Path(request["folder"]), resume=request.get("resume", False))
        code = 0
    except BaseException:
        words.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)


def arm(place: str, count: int) -> None:
    """From now on the process kills itself at the `count`-th visit to a place."""
    module_name, name = PLACES[place]
    module = importlib.import_module(module_name)
    real, left = getattr(module, name), [count]

    def deadly(*arguments: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    setattr(module, name, deadly)


def answer(values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    serve()
