"""Classification: cross-entropy over the labels, by hand and by the task; chunks and processes change nothing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.tiny_trial import stirred, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.model.unified import UnifiedModel
from twofold.records import Labelled
from twofold.tasks import StepContext
from twofold.tasks.classify import ClassifyTask, build

TEXTS = ["one", "two of them", "a third text that is longer than the others"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> UnifiedModel:
    torch.set_num_threads(1)
    folder = write_backbone(tmp_path_factory.mktemp("backbone"))
    return stirred(tiny_unified(folder, LayerPlan((Expert("one", 2),)), classify={"labels": ["x", "y", "z"]}))


def examples(labels: str) -> list[Labelled]:
    return [Labelled(f"t{i}", text, label) for i, (text, label) in enumerate(zip(TEXTS, labels, strict=True))]


def test_the_loss_is_the_cross_entropy_of_the_heads_logits(model: UnifiedModel) -> None:
    task = model.tasks["classify"]
    assert isinstance(task, ClassifyTask)
    with torch.no_grad():
        vector_ND = torch.stack([task_vector(model, text) for text in TEXTS])
        logit_NC = vector_ND * vector_ND.shape[-1] ** 0.5 @ task.linear.weight.T + task.linear.bias
        want = F.cross_entropy(logit_NC, torch.tensor([1, 0, 2]))
    got = task.step(examples("yxz"), StepContext(model.encoder, lambda loss: loss.backward()))
    assert got.loss == pytest.approx(float(want), abs=1e-5)


def task_vector(model: UnifiedModel, text: str) -> torch.Tensor:
    pack = model.tokens.texts([text])
    return F.normalize(model.backbone.pool(model.backbone(pack, "classify")[0], pack), dim=-1)[0]


def test_guesses_are_the_most_likely_labels(model: UnifiedModel) -> None:
    task = model.tasks["classify"]
    assert isinstance(task, ClassifyTask)
    guesses = model.predict("classify", TEXTS)
    with torch.no_grad():
        likely_NC = task.logits(model.encoder, model.tokens.texts(TEXTS), 8192)[0].softmax(-1)
    assert [guess.label for guess in guesses] == ["xyz"[i] for i in likely_NC.argmax(-1).tolist()]
    assert [guess.probability for guess in guesses] == pytest.approx(likely_NC.amax(-1).tolist(), abs=1e-5)


def test_before_training_all_labels_are_equally_likely() -> None:
    task = build(width=8, labels=["a", "b", "c", "d"])
    assert not bool(task.linear.weight.any())


def test_a_label_that_the_head_lacks_is_named(model: UnifiedModel) -> None:
    with pytest.raises(ValueError, match="t2: label 'q' is none of the 3 that 'classify' was made for"):
        model.tasks["classify"].step(examples("xyq"), StepContext(model.encoder, lambda loss: loss.backward()))  # type: ignore[operator]


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"]])
def test_labels_are_two_or_more_and_each_once(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="give two or more, each once"):
        build(width=8, labels=labels)
