"""The files that other libraries read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.model.conftest import CHAT, MakeModel
from twofold.model.views import longest_input, needs_types, write_views


def read(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_text())
    return content


def test_only_types_of_sentence_transformers_and_the_task_reaches_the_model(make_model: MakeModel, tmp_path: Path) -> None:
    write_views(tmp_path, make_model(prompts={"query": "query : "}), {"format": 1})
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert all(module["type"].startswith("sentence_transformers.") for module in modules) and modules[0]["kwargs"] == ["task"]
    config = read(tmp_path / "config.json")
    assert config["architectures"] == ["TwofoldModel"] and config["model_type"] == "twofold" and config["twofold"] == {"format": 1}
    assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.linear.Identity"} and len(config["id2label"]) == 1  # type: ignore[arg-type]
    view = read(tmp_path / "config_sentence_transformers.json")
    assert view["model_type"] == "SentenceTransformer" and view["prompts"] == {"query": "query : ", "document": ""}
    assert read(tmp_path / "sentence_bert_config.json")["max_seq_length"] == 24


@pytest.mark.parametrize(("pooling", "mode"), [("mean", "mean_tokens"), ("first", "cls_token"), ("last", "lasttoken")])
def test_the_pooling_is_the_models(make_model: MakeModel, tmp_path: Path, pooling: str, mode: str) -> None:
    write_views(tmp_path, make_model(pooling=pooling), {})
    settings = read(tmp_path / "1_Pooling" / "config.json")
    assert [key for key, value in settings.items() if key.startswith("pooling_mode") and value] == [f"pooling_mode_{mode}"]


def test_a_model_that_only_reranks_has_no_view_as_an_embedder(make_model: MakeModel, tmp_path: Path) -> None:
    write_views(tmp_path, make_model(tasks={"rerank": {}}), {})
    assert not (tmp_path / "modules.json").exists() and (tmp_path / "tokenizer.json").is_file()


def test_the_tokenizer_says_nothing_of_this_machine(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    write_views(tmp_path, model, {})
    assert "name_or_path" not in read(tmp_path / "tokenizer_config.json")
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == longest_input(model.tokens) == 83


def test_the_chat_template_stays_behind(make_model: MakeModel, tmp_path: Path) -> None:
    """CrossEncoder would put it around every pair, instead of the prompts."""
    model = make_model("none", "chat_llama", **CHAT)
    write_views(tmp_path, model, {})
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template is None and model.tokens.tokenizer.chat_template


def test_a_tokenizer_without_padding_and_without_a_middle_gets_both_from_us(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(family="qwen3")
    assert needs_types(model) and not needs_types(make_model()) and not needs_types(make_model(family="llama"))
    write_views(tmp_path, model, {})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    found = tokenizer([("a red", "dog"), ("a", "it")], padding=True)
    assert [sum(types) for types in found["token_type_ids"]] == [1, 1] and tokenizer.pad_token == "</s>"
