"""The package's front door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import twofold
from tests import tiny
from twofold.model import folder
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.system import System


def test_load_and_load_system(tmp_path: Path) -> None:
    tokenizer = tiny.bert_tokenizer()
    backbone = tiny.tiny_model(vocab_size=len(tokenizer))
    for part in (backbone, tokenizer):
        part.save_pretrained(tmp_path / "backbone")  # type: ignore[operator]
    model = build_model(ModelSpec(str(tmp_path / "backbone"), {"retrieve": {}, "rerank": {}}, pair_length=40, query_length=8))
    folder.save(model, tmp_path / "model")
    loaded = twofold.load(tmp_path / "model", "cpu")
    assert np.array_equal(loaded.encode(["a red fox"]), model.encode(["a red fox"]))
    system = twofold.load_system(str(tmp_path / "model"), device="cpu")
    assert isinstance(system, System) and len(system.models) == 1
    assert loaded.backbone.device == torch.device("cpu")
