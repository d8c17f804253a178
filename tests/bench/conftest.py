"""A tiny BERT and a few texts on disk: what the benchmarks run on here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tiny import WORDS, bert_tokenizer, tiny_model


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that make a script small: --quick, a tiny backbone, texts of many lengths."""
    folder = tmp_path_factory.mktemp("bench")
    tiny_model("bert", max_position_embeddings=512).save_pretrained(folder / "tiny")
    bert_tokenizer().save_pretrained(folder / "tiny")
    lines = []
    for i in range(30):
        words = [WORDS[(i * 7 + j * (i % 5 + 1)) % len(WORDS)] for j in range(4 + 2 * i)]
        lines.append(json.dumps({"query": f"what is {WORDS[i % 8]} {i}", "positive": f"{' '.join(words)} {i}"}))
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    return ["--quick", "--backbone", str(folder / "tiny"), "--texts", str(folder / "texts.jsonl")]


@pytest.fixture(autouse=True)
def own_cache(cache_dir: Path) -> Path:
    """Nothing is written to the user's cache."""
    return cache_dir
