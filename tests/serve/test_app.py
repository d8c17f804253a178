"""The application as a whole: its description is complete, and fuzzed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from twofold.serve.service import Service

CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 503]
"""


def test_the_description_names_every_error(client: httpx2.Client) -> None:
    paths = json.loads(client.get("/openapi.json").text)["paths"]
    assert {"/v1/embeddings", "/rerank", "/v2/rerank", "/score", "/v1/search", "/v1/answer", "/v1/models", "/ready"} <= paths.keys()
    for path in ("/v1/embeddings", "/rerank", "/v1/search"):
        assert {"200", "400", "401", "404", "413", "415", "422", "429", "503"} <= paths[path]["post"]["responses"].keys()


@pytest.mark.slow
def test_fuzzed_by_its_own_description(searched: tuple[Service, httpx2.Client], tmp_path: Path) -> None:
    """Schemathesis against a real server: no unexpected 5xx, no answer that the description does not have, nothing bad accepted.

    `positive_data_acceptance` is left out: that two lists must be equally long, and dimensions at most the model's, is nothing that a
    description can say. TWOFOLD_FUZZ=200 for the long run.
    """
    pytest.importorskip("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    tool = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or "schemathesis"
    command = [
        tool,
        "run",
        f"{str(searched[1].base_url).rstrip('/')}/openapi.json",
        "--seed",
        "1",
        "--max-examples",
        os.environ.get("TWOFOLD_FUZZ", "5"),
    ]
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--suppress-health-check", "all", "--no-color"]
    phases = ["--phases", "coverage,fuzzing", "--continue-on-failure", "--generation-database", "none", "--request-timeout", "300"]
    done = subprocess.run([*command, *options, *phases], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert searched[1].get("/ready").status_code == 200 and not any(searched[0].engine.queue.load.values())
