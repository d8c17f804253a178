"""Decoders on both tasks, from a config alone: losses fall, packed is padded, and training reads what serving reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from tests.conftest import ROOT
from tests.tiny import write_decoder
from tests.tiny_trial import tiny_config, tiny_examples, write_beir
from twofold.backbone.packed import Pack
from twofold.config import TrialConfig, read
from twofold.model.build import build_model
from twofold.model.folder import load_system
from twofold.model.unified import UnifiedModel
from twofold.tasks import StepContext, Task
from twofold.tasks.listwise import ListwiseTask
from twofold.train.start import mining_model, spec_of
from twofold.train.trial import method_of, run_trial


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrialConfig:
    """Both tasks over a random decoder, a chat around the pairs and an answer for their score; every step sees all 32 queries."""
    folder = tmp_path_factory.mktemp(request.param)
    write_decoder(folder / "decoder", request.param)
    rerank = {"batch": 32, "negatives": 1, "options": {"head": "yes_no"}}
    return tiny_config(
        folder / "decoder",
        write_beir(folder / "beir"),
        backbone={"template": "chatml", "max_length": 48, "pair_length": 200, "query_length": 20},
        tasks={"retrieve": {"batch": 32, "negatives": 0}, "rerank": rerank},
        optim={"steps": 12, "lr": 1e-2, "schedule": "constant"},
        data={"negatives": {"bm25_depth": 5, "model_depth": 0}},
        checkpoint={"every": 50},
    )


def made(settings: TrialConfig, **changes: Any) -> UnifiedModel:
    backbone = settings.backbone.model_copy(update=changes)
    return build_model(spec_of(settings.model_copy(update={"backbone": backbone}), method_of(settings).members[0]))


def test_both_losses_fall_and_every_library_opens_the_folder(settings: TrialConfig, tmp_path: Path, cache_dir: Path) -> None:
    short = {"pair_prefix": "", "pair_query": "", "pair_document": "", "pair_suffix": "<|im_end|>"}  # a random decoder forgets fast
    settings = settings.model_copy(update={"backbone": settings.backbone.model_copy(update={"prompts": short})})
    system = run_trial(settings, tmp_path / "trial")
    rows = [json.loads(line) for line in next((tmp_path / "trial").rglob("log.jsonl")).read_text().splitlines()]
    for task in ("retrieve", "rerank"):
        values = [row["loss"][task] for row in rows if "loss" in row]
        assert len(values) == 12 and np.mean(values[-3:]) < 0.95 * np.mean(values[:3]), (task, values)
    texts, pairs = ["a fox", "bc de fg"], [("bc", "bc de fg"), ("what", "a fox")]
    embedder = SentenceTransformer(str(tmp_path / "trial" / "model"), device="cpu")
    assert np.abs(embedder.encode_query(texts) - system.encode_queries(texts)).max() < 1e-5
    assert np.abs(CrossEncoder(str(tmp_path / "trial" / "model"), device="cpu").predict(pairs) - system.score(pairs)).max() < 1e-4


def test_packed_is_padded(settings: TrialConfig) -> None:
    packed, padded = made(settings), made(settings, attention="padded")
    assert packed.backbone.packed and not padded.backbone.packed
    for model in (packed, padded):
        torch.manual_seed(1)
        for group, members in model.groups().items():
            for _, parameter in members if group.startswith("expert") else ():
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
    texts, pairs = ["a", "the fox runs", "dog " * 40], [("a", "dog"), ("what is it", "fox " * 60)]
    assert np.abs(packed.encode_queries(texts) - padded.encode_queries(texts)).max() < 1e-5
    assert packed.score(pairs) == pytest.approx(padded.score(pairs), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("task", ["retrieve", "rerank"])
def test_training_reads_what_serving_reads(settings: TrialConfig, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ids for the same texts, template and all; and what mines negatives has the same prompts."""
    model, examples = made(settings), tiny_examples(3)
    seen: list[Pack] = []
    forward = model.backbone.forward

    def watched(pack: Pack, tasks: str) -> Any:
        seen.append(pack)
        return forward(pack, tasks)

    def rows() -> list[tuple[int, ...]]:
        found = sorted(tuple(ids.tolist()) for pack in seen for ids in pack.input_ids_T.split(list(pack.lengths)))
        seen.clear()
        return found

    monkeypatch.setattr(model.backbone, "forward", watched)
    owner = model.tasks[task]
    assert isinstance(owner, Task)
    owner.step(examples, StepContext(model.train().encoder, lambda loss: None))
    trained = rows()
    if task == "rerank":
        model.score([(example.query, text) for example in examples for text in example.documents])
    else:
        model.encode_queries([example.query for example in examples])
        model.encode_documents([text for example in examples for text in example.documents])
    assert rows() == trained and mining_model(settings, torch.device("cpu")).tokens.prompts == model.tokens.prompts
    end = model.tokens.prompts["append" if task == "retrieve" else "pair_suffix"]
    assert all(model.tokens.tokenizer.decode(ids).endswith(end) for ids in trained)


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp(f"methods-{request.param}")
    write_decoder(folder / "decoder", request.param)
    return folder / "decoder", write_beir(folder / "beir")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "methods" / "decoder").glob("*.toml")), ids=lambda path: path.stem)
def test_the_committed_methods_train_with_the_fields_own_prompts(
    path: Path, folders: tuple[Path, Path], tmp_path: Path, cache_dir: Path
) -> None:
    """On a tokenizer of bytes, so with more room and fewer texts; packed; and opened again they score as they did."""
    small = {"device": "cpu", "optim.steps": 4, "optim.lr_backbone": 1e-3, "backbone.max_length": 224, "backbone.pair_length": 480}
    small |= {
        "backbone.query_length": 12,
        "data.negatives.bm25_depth": 5,
        "tasks.retrieve.batch": 4,
        "tasks.rerank.batch": 2,
        "dev.depth": 5,
    }
    places = [f'backbone.name="{folders[0]}"', f'data.train=["{folders[1]}"]']
    changes = [f"{key}={json.dumps(value)}" for key, value in small.items()]
    shorter = ["method.options.k=2", "method.options.document_tokens=30"] if path.stem == "e2rank" else []
    config = read(path, [*places, *changes, *shorter])
    system = run_trial(config, tmp_path / "trial")
    rows = [json.loads(line) for log in (tmp_path / "trial").rglob("log.jsonl") for line in log.read_text().splitlines()]
    assert {task for row in rows for task in row["loss"]} == {"retrieve", "rerank"}
    assert all(max(row["norm"].get(group, 0) for row in rows) > 0 for group in {group for row in rows for group in row["norm"]})
    again = load_system(tmp_path / "trial" / "model")
    pairs = [("bc", "bc de fg"), ("bc", "a fox"), ("what", "a fox")]
    assert all(model.backbone.packed for model in again.models)
    assert np.array_equal(again.score(pairs), system.score(pairs))
    assert np.array_equal(again.encode_queries(["bc de"]), system.encode_queries(["bc de"]))


def test_a_listwise_chat_ends_as_every_text_does(folders: tuple[Path, Path]) -> None:
    """The prompt is a chat of E2Rank's words, and the state of the same end token is the vector of a query, a document and a list."""
    config = read(ROOT / "configs" / "methods" / "decoder" / "e2rank.toml", [
        f'backbone.name="{folders[0]}"', "method.options.k=2", "backbone.max_length=200", "backbone.pair_length=480"
    ])  # fmt: skip
    model = build_model(spec_of(config, method_of(config).members[0]))
    task = model.tasks["rerank"]
    assert isinstance(task, ListwiseTask)
    packs = task.pack(model.tokens, [("bc", "a fox", "a dog", "it")])
    (asked,) = (model.tokens.tokenizer.decode(ids) for ids in packs.asked.input_ids_T.split(list(packs.asked.lengths)))
    documents = [model.tokens.tokenizer.decode(ids) for ids in packs.documents.input_ids_T.split(list(packs.documents.lengths))]
    assert asked.startswith("<|im_start|>user\n") and "first:\nDocuments:\n[1] a fox\n[2] a dog\nQuery: bc<|im_end|>\n" in asked
    assert asked.endswith("</think>\n\n<|endoftext|>") and sorted(documents) == [
        "a dog<|endoftext|>",
        "a fox<|endoftext|>",
        "it<|endoftext|>",
    ]
    assert model.backbone.pooling == "last"
