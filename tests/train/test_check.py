from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import write_decoder
from tests.tiny_trial import tiny_config
from twofold.backbone.backbone import Backbone
from twofold.backbone.load import load_model
from twofold.backbone.tokens import TextTokens
from twofold.config import BackboneConfig
from twofold.data.check import examine
from twofold.data.findings import lengths
from twofold.data.sources import open_dataset
from twofold.errors import ConfigError, DataError
from twofold.prompts import prompts_of
from twofold.train.check import Ruler, check_before, demands, judged


def test_what_is_measured_is_what_the_model_reads(backbone_dir: Path) -> None:
    """Lengths with template and prompt, and the model's reach, are those of the loaded model."""
    prompts = {"document": "document: ", "query": "query: ", "pair_between": " it", "pair_prefix": "the dog", "pair_suffix": "a fox"}
    ruler = Ruler.of(BackboneConfig(name=str(backbone_dir), prompts=prompts))  # type: ignore[arg-type]
    model, tokenizer = load_model(str(backbone_dir))
    tokens = TextTokens(tokenizer, max_length=60, pair_length=60, query_length=20, prompts=prompts)
    texts = ["the lazy dog", "a fox", ""]
    read = tokens.texts(texts, "document")
    assert sorted(count + ruler.around_document for count in ruler.count(texts)) == sorted(read.lengths)
    assert ruler.around_pair == 1 + 2 + 1 + 2, "the first token, prefix, between, suffix"
    pair = tokens.pairs([("a fox", "the lazy dog")])
    assert sum(ruler.count(["a fox", "the lazy dog"])) + ruler.around_pair == pair.tokens
    assert ruler.reach == Backbone(model).position_limit


def test_a_decoders_template_is_counted(tmp_path: Path) -> None:
    write_decoder(tmp_path, "llama")
    ruler, texts = Ruler.of(BackboneConfig(name=str(tmp_path), template="chatml")), ["what is it", "a fox"]
    tokens = TextTokens(ruler.tokenizer, max_length=60, pair_length=300, query_length=20, prompts=prompts_of("chatml"))
    assert sum(ruler.count(texts)) + ruler.around_pair == tokens.pairs([("what is it", "a fox")]).tokens
    assert ruler.count(["a fox"])[0] + ruler.around_document == tokens.texts(["a fox"], "document").tokens


def test_a_backbone_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Ruler.of(BackboneConfig(name=str(tmp_path)))


def test_cuts_follow_the_settings(backbone_dir: Path, beir_dir: Path) -> None:
    config = tiny_config(backbone_dir, beir_dir, backbone={"max_length": 12}, optim={"pair_length": 16})
    ruler = Ruler.of(config.backbone)
    facts = examine(open_dataset(beir_dir), ruler.count)
    rows = lengths(facts, ruler.limits(config))
    assert rows["documents"].limit == 12 and rows["documents"].cut > 0.5
    assert rows["pairs"].cut_in_training > rows["pairs"].cut
    assert "backbone.max_length" in " ".join(judged(config, facts, ruler).lines())


def test_what_is_demanded(backbone_dir: Path, beir_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(backbone_dir, beir_dir)
    assert demands(config)["retrieve"].batch == 4
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert demands(config)["retrieve"].batch == 12
    assert demands(tiny_config(backbone_dir, beir_dir, method={"name": "zero_shot"})) == {}


def test_errors_stop_and_name_the_dataset_and_the_way_out(backbone_dir: Path, beir_dir: Path) -> None:
    said: list[str] = []
    datasets = {"mine": open_dataset(beir_dir)}
    check_before(tiny_config(backbone_dir, beir_dir), datasets, {}, said.append)
    assert said[0].startswith("tiny: 40 documents")
    large = tiny_config(backbone_dir, beir_dir, tasks={"retrieve": {"batch": 100}, "rerank": {"batch": 2, "negatives": 2}})
    with pytest.raises(DataError, match=r"mine: 32 training queries for a batch of 100 \(retrieve\); lower tasks.retrieve.batch to 16"):
        check_before(large, datasets, {}, said.append)
    check_before(large.model_copy(update={"method": large.method.model_copy(update={"name": "zero_shot"})}), datasets, {}, said.append)


def test_what_was_counted_is_not_counted_again(backbone_dir: Path, beir_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(beir_dir)
    facts = examine(dataset)
    monkeypatch.setattr("twofold.train.check.examine", lambda *_: pytest.fail("counted again"))
    said: list[str] = []
    check_before(tiny_config(backbone_dir, beir_dir), {"mine": dataset}, {"mine": facts}, said.append)
    assert said
