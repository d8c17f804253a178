"""Adapters for PEFT: loaded by PEFT itself over the bare backbone, equal where the routing is constant, measured where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.nn import functional as F

from tests.model.conftest import MakeModel
from twofold.backbone.load import load_model
from twofold.errors import CheckpointError
from twofold.model.peft_export import export
from twofold.model.unified import UnifiedModel

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # PEFT asks transformers by an old name
TEXTS = ["the red fox runs over the lazy dog", "a dog", "what is it"]
PAIRS = [("what is it", "a red fox"), ("the dog", "a lazy dog over a fox")]


def peft_outputs(model: UnifiedModel, folder: Path, task: str) -> torch.Tensor:
    """Vectors of `TEXTS`, or scores of `PAIRS` for rerank, by PEFT: a padded pass over the bare backbone, one text at a time."""
    backbone, _ = load_model(model.spec.backbone)
    peft = PeftModel.from_pretrained(backbone, str(folder / task)).eval()
    found = []
    for sample in PAIRS if task == "rerank" else TEXTS:
        pack = model.tokens.texts([sample]) if isinstance(sample, str) else model.tokens.pairs([sample])
        with torch.no_grad():
            hidden_TD = peft(input_ids=pack.input_ids_T[None], token_type_ids=pack.type_ids_T[None]).last_hidden_state[0]
            if task != "rerank":
                found.append(F.normalize(hidden_TD.mean(0), dim=-1))
            else:
                query, document = (hidden_TD[pack.part_T == part].mean(0)[None] for part in (1, 2))
                found.append(model.tasks["rerank"].score_hidden(query, document)[0])  # type: ignore[operator]
    return torch.stack(found)


@pytest.mark.parametrize("plan", ["uniform", "by_task", "task_gate"])
def test_constant_routing_is_exact(make_model: MakeModel, tmp_path: Path, plan: str) -> None:
    model = make_model(plan)
    found = export(model, tmp_path / "peft", texts=TEXTS, pairs=PAIRS)
    assert all(each.constant and each.difference is not None and each.difference < 1e-5 for each in found.values())
    assert abs(peft_outputs(model, tmp_path / "peft", "retrieve") - torch.tensor(model.encode(TEXTS))).max() < 1e-5
    scores = torch.tensor(model.score(PAIRS))
    assert (abs(peft_outputs(model, tmp_path / "peft", "rerank") - scores) / scores.abs().clamp_min(1)).max() < 1e-5


@pytest.mark.parametrize("plan", ["soft", "topk"])
def test_learned_routing_is_its_mean_and_the_difference_is_measured(make_model: MakeModel, tmp_path: Path, plan: str) -> None:
    model = make_model(plan)
    before = model.encode(TEXTS)
    found = export(model, tmp_path / "peft", texts=TEXTS, pairs=PAIRS)
    assert abs(model.encode(TEXTS) - before).max() == 0  # the routers are back
    vectors = peft_outputs(model, tmp_path / "peft", "retrieve")
    difference = float(abs(vectors - torch.tensor(before)).max())
    assert not found["retrieve"].constant and difference > 1e-4
    assert found["retrieve"].difference == pytest.approx(difference, abs=1e-5)


def test_ranks_that_differ_stand_in_the_patterns(make_model: MakeModel, tmp_path: Path) -> None:
    export(make_model("by_task"), tmp_path / "peft")
    config = json.loads((tmp_path / "peft" / "rerank" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] and set(config["rank_pattern"].values()) | {config["r"]} == {3 + 2, 3 + 4}
    assert config["rank_pattern"] == config["alpha_pattern"] and len(config["target_modules"]) == 12


def test_what_cannot_be_exported(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no experts to export"):
        export(make_model("none"), tmp_path / "peft")
    with pytest.raises(ValueError, match="'rerank' depends on the input: give sample pairs"):
        export(make_model("soft"), tmp_path / "peft", texts=TEXTS)
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "mine").touch()
    with pytest.raises(CheckpointError, match="is there already"):
        export(make_model("uniform"), tmp_path / "peft")


def test_the_sides_of_retrieval_are_adapters_of_their_own(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model("sides", tasks={"retrieve": {"sides": True}, "rerank": {"head": "both"}})
    found = export(model, tmp_path / "peft", pairs=PAIRS)
    assert list(found) == ["retrieve/query", "retrieve/document", "rerank"] and all(each.constant for each in found.values())
    for side, vectors in (("query", model.encode_queries(TEXTS)), ("document", model.encode_documents(TEXTS))):
        own = peft_outputs(model, tmp_path / "peft" / "retrieve", side)
        assert abs(own - torch.tensor(vectors)).max() < 1e-5
