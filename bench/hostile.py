"""What the server makes of bad input (T7), of its own description fuzzed (T8), and of people without the right key (T10).

T7: every request of `bench/_bad_input.py` against a server in a process of its own: seconds of the slowest, megabytes by which the
server grew over all of them, answers of 5xx, and the share that got the very code that it should. T8: schemathesis, 200 examples per
operation (needs the extra `clients`; without it nothing is said). T10: every role on every route, by the gate that the server has. That
files of data name their line, T7's other half, and hostile model folders, T10's, are tests of their own.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bench import _measure
from bench._bad_input import BAD
from bench._http import serving

KNOWN = [400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 503]
LEFT_OUT = "positive_data_acceptance"
"""That two lists must be equally long, and dimensions at most the model's, is nothing that a description can say."""


def bad_input(port: int, process: Any) -> dict[str, float]:
    """T7."""
    slowest, wrong, broken, before = 0.0, 0, 0, process.memory_info().rss
    for path, body, status, code in BAD:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        begun = time.perf_counter()
        try:
            with urlopen(Request(f"http://127.0.0.1:{port}{path}", content, {"Content-Type": "application/json"}), timeout=60) as answer:
                got, said = answer.status, answer.read()
        except HTTPError as error:
            got, said = error.code, error.read()
        slowest = max(slowest, time.perf_counter() - begun)
        broken += got >= 500
        wrong += (got, json.loads(said).get("error", {}).get("code")) != (status, code)
    grown = (process.memory_info().rss - before) / 1e6
    told = {"seconds": round(slowest, 4), "megabytes": round(grown, 1), "tracebacks": broken}
    return {"requests": len(BAD), **told, "named": round(1 - wrong / len(BAD), 4)}


def fuzzed(port: int, examples: int) -> dict[str, int] | None:
    """T8; None where schemathesis is not installed."""
    tool = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which("schemathesis")
    if tool is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "schemathesis.toml").write_text(f"[checks.negative_data_rejection]\nexpected-statuses = {KNOWN}\n")
        command = [tool, "run", f"http://127.0.0.1:{port}/openapi.json", "--seed", "1", "--max-examples", str(examples), "--checks", "all"]
        options = ["--exclude-checks", LEFT_OUT, "--suppress-health-check", "all", "--no-color", "--phases", "coverage,fuzzing"]
        more = ["--continue-on-failure", "--generation-database", "none", "--request-timeout", "300"]  # lists of 2,048 texts, on one core
        done = subprocess.run([*command, *options, *more], cwd=folder, capture_output=True, text=True, check=False)
    found = {name: int(count) for name, count in re.findall(r"❌ \w+ ([^:\n]+): (\d+)", done.stdout)}
    cases = re.search(r"(\d+) generated", done.stdout)
    failed = sum(found.values())
    if cases is None or (done.returncode and not failed):
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    broken = found.get("Server error", 0)
    return {"cases": int(cases[1]), "examples": examples, "unexpected_5xx": broken, "mismatches": failed - broken}


def roles() -> dict[str, float]:
    """T10: the share of role × route that the gate decides as its table says. There is no model, so what is let in is told 503 or 404."""
    from twofold.serve.app import make_app
    from twofold.serve.gate import NEEDS, Rules
    from twofold.serve.keys import Key, Keys, sha256
    from twofold.serve.service import Service

    words: dict[str, str | None] = {"nobody": None, "stranger": "x" * 24, "use": "u" * 24, "admin": "a" * 24}
    keys = Keys([Key("one", "use", sha256("u" * 24)), Key("two", "admin", sha256("a" * 24))])
    app = make_app(Service("any"), Rules(keys))
    described: Any = app.app
    cases = [(path, role) for path in sorted({*described.openapi()["paths"], *NEEDS}) for role in words]
    right = sum(_status(app, path, words[role]) in _wanted(NEEDS.get(path, "use"), role) for path, role in cases)
    return {"cases": len(cases), "covered": round(right / len(cases), 4)}


def _wanted(need: str, role: str) -> set[int]:
    if need == "nobody" or role == "admin" or (role == "use" and need == "use"):
        return {200, 404, 405, 503}
    return {403} if role == "use" else {401}


def _status(app: Any, path: str, word: str | None) -> int:
    """One GET through the application itself."""
    headers = [(b"host", b"localhost"), *([] if word is None else [(b"authorization", f"Bearer {word}".encode())])]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
    scope |= {"scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "root_path": ""}
    seen: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    asyncio.run(app(scope, receive, send))
    return seen[0]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    chosen = _measure.options(__doc__, arguments, rounds=1)
    command = ["bench.serve", "--child", "600", "--backbone", chosen.backbone, "--texts", chosen.texts]
    with _measure.one_thread(), serving([*command, *(["--quick"] if chosen.quick else [])], None) as (port, process):
        figures: dict[str, Any] = {"bad input": bad_input(port, process), "roles": roles()}
        fuzz = None if chosen.quick else fuzzed(port, 200)
    board = [
        ("T7", {name: figures["bad input"][name] for name in ("seconds", "megabytes", "tracebacks")}),
        ("T10", {"covered": figures["roles"]["covered"]}),
    ]
    if fuzz is not None:
        figures["fuzz"] = fuzz
        board.append(("T8", {name: fuzz[name] for name in ("unexpected_5xx", "mismatches")}))
    clock = "wall clock, client and server on one machine"
    one = {"value": figures["bad input"]["named"]}
    ratios = {"refused with the very code": {**one, "low": one["value"], "high": one["value"]}}
    content = _measure.result("hostile", __doc__ or "", ratios, board, chosen, clock=clock, figures=figures)
    _measure.show(content, chosen.to)
    return content


if __name__ == "__main__":
    main()
