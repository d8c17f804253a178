"""How well a classifier's labels are right, with MTEB's linear probe of the same model's embeddings beside it.

MTEB's protocol for classification (Muennighoff et al. 2023, arXiv 2210.07316): ten times, eight texts of each label are drawn
from train, a logistic regression (at most 100 iterations) is fitted on their embeddings, and its accuracy on test is averaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from twofold import provenance
from twofold.cache import write_text
from twofold.data.labelled import LabelledDataset
from twofold.model.unified import UnifiedModel
from twofold.records import Encode, Labelled

ROUNDS, SHOTS, ITERATIONS = 10, 8, 100
MEASURES = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Classification:
    """One evaluation of one task's labels, as plain data."""

    name: str
    data: Mapping[str, Any]
    """Name, split, sha256, number of texts and labels."""
    task: str
    rows: Mapping[str, Mapping[str, float]]
    """"classifier", "probe" and, where one was given, "frozen probe" → accuracy and macro-F1."""
    right: Mapping[str, int]
    """Text id → whether the classifier's label is the right one."""
    system: Mapping[str, Any]
    environment: Mapping[str, Any]

    def to_json(self) -> str:
        """All of it, readable."""
        return json.dumps({"kind": "classification", **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        """Writes it as JSON, completely or not at all."""
        write_text(path, self.to_json())


def classify_dataset(
    model: UnifiedModel, task: str, dataset: LabelledDataset, split: str = "test", *, name: str = "", frozen: Encode | None = None
) -> Classification:
    """Accuracy and macro-F1 of a task's labels on a split, and of the linear probe on the model's own embeddings.

    `frozen` embeds with the backbone that nobody trained, for the probe beside it. Raises ValueError for a task that the model
    does not do, and DataError for a split that is not there.
    """
    texts = dataset.split(split)
    guesses = model.predict(task, [one.text for one in texts])
    rows = {"classifier": measures([one.label for one in texts], [guess.label for guess in guesses])}
    if "retrieve" in model.tasks:
        rows["probe"] = linear_probe(model.encode, dataset.split("train"), texts)
    if frozen is not None:
        rows["frozen probe"] = linear_probe(frozen, dataset.split("train"), texts)
    about = {"name": dataset.name, "split": split, "sha256": dataset.fingerprint, "texts": len(texts), "labels": len(dataset.labels)}
    right = {f"{i}:{one.id}": int(guess.label == one.label) for i, (one, guess) in enumerate(zip(texts, guesses, strict=True))}
    settings = {"backbone": model.spec.backbone, "plan": model.spec.to_dict()["plan"], "precision": model.spec.precision}
    return Classification(name or f"{dataset.name}-{task}", about, task, rows, right, settings, provenance.environment())


def linear_probe(encode: Encode, train: Sequence[Labelled], test: Sequence[Labelled], seed: int = 42) -> dict[str, float]:
    """Accuracy and macro-F1 of MTEB's probe, means over its rounds. Texts are embedded once, those of train that are drawn only."""
    drawn = [few_shots(train, np.random.default_rng([seed, round_])) for round_ in range(ROUNDS)]
    needed = sorted({i for row in drawn for i in row})
    vector_ND = dict(zip(needed, encode([train[i].text for i in needed]), strict=True))
    test_MD, wanted = encode([one.text for one in test]), [one.label for one in test]
    found = []
    for row in drawn:
        probe = LogisticRegression(max_iter=ITERATIONS)
        probe.fit(np.stack([vector_ND[i] for i in row]), [train[i].label for i in row])
        found.append(measures(wanted, probe.predict(test_MD).tolist()))
    return {key: float(np.mean([each[key] for each in found])) for key in MEASURES}


def few_shots(train: Sequence[Labelled], draw: np.random.Generator) -> list[int]:
    """The places of up to `SHOTS` texts of each label, in random order."""
    left: dict[str, int] = {}
    chosen = []
    for i in draw.permutation(len(train)).tolist():
        taken = left.get(train[i].label, 0)
        if taken < SHOTS:
            left[train[i].label] = taken + 1
            chosen.append(i)
    return chosen


def measures(wanted: Sequence[str], given: Sequence[str]) -> dict[str, float]:
    """Accuracy, and the unweighted mean of the labels' F1."""
    f1 = f1_score(wanted, given, average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(wanted, given)), "macro_f1": float(f1)}
