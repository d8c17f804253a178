"""What the experts read: linear probes for simple properties of the input, with control tasks (Hewitt and Liang 2019, arXiv 1909.03368).

A probe is a logistic regression from what an expert takes of an input to a property (`_properties.py` defines them). An expert's output
is B A x, a linear map of A x, so nothing that a linear probe finds in the one is lost in the other, and the features are A x: the
mean over the input's tokens, of all linear layers of a block side by side. Its score is balanced accuracy (the mean of the classes'
recalls; chance is one over their number) on folds that share no query with those it learnt from.

A good score may be the probe's own doing. A control task has the same classes, dealt out at random to word types: an input gets the
class of one of its words that recurs, so that only learning words by heart helps. Selectivity is score − control score: read that, not
the score. Two references stand beside the experts: `random`, what random matrices of the experts' size take of the same input (an
untrained A sees much already), and `input`, all that comes into the block.
"""

from __future__ import annotations

import warnings
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.core.routing import generator
from twofold.data.sources import Dataset
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.probes import Progress, Report, Row, quiet
from twofold.probes._looking import Seen, block_name, experts_of, factors, layers_of, observe, one_mixture, pooled
from twofold.probes._material import LENGTH, Pass, Sample, chosen, ranking_passes, sample
from twofold.probes._numbers import Floats, interval, mean_of, rounded
from twofold.probes._properties import Values, classes, document_frequency, keys, properties_of_pairs, properties_of_texts

RANDOM, INPUT, X = "random", "input", "x"
FOLDS, FEWEST, RESAMPLES = 5, 10, 300
Names = NDArray[np.str_]
UNITS = {
    "score": "balanced accuracy on held-out queries, 0 to 1",
    "chance": "one over the number of classes",
    "control": "the same for random classes of word types, mean over draws",
    "selectivity": "score − control; low, high: 95 % bootstrap interval over inputs",
    "expert": "an expert, or a reference: random (matrices of the same size) or input (all that comes into the block)",
}


class Question(NamedTuple):
    """A property of the inputs of a pass, as classes. N inputs."""

    label_N: Names
    key_N: Names
    group_N: NDArray[np.int64]
    """The query of each: folds share none."""


def run(
    system: System,
    dataset: Dataset,
    *,
    split: str = "test",
    queries: int = 150,
    seed: int = 0,
    progress: Progress = quiet,
    length: int = LENGTH,
    controls: int = 2,
) -> Report:
    """`length`: tokens of an input (0: the model's own); `controls`: how many draws of each control task."""
    model, notes = one_mixture(system, "content"), list[str]()
    taken = sample(dataset, split, queries)
    notes.append(taken.text)
    counted = document_frequency(chosen(dataset, split, 1).corpus)
    rows: list[Row] = []
    passes = ranking_passes(system, taken, notes, length)
    for i, one in enumerate(passes):
        features = features_of(model, observe(one, lambda _, x, __: {X: pooled(x)}, progress=progress), seed)
        for name, values in _properties(one, taken, *counted).items():
            asked = _question(one, taken, values)
            if len(set(asked.label_N[asked.label_N != ""])) < 2:
                notes.append(f"{one.task} {one.side}: {name} has no two classes of {FEWEST} or more inputs here; left out")
                continue
            where: Row = {"task": one.task, "side": one.side, "property": name}
            rows += [{**where, **row} for row in _rows(features, asked, controls, seed)]
        progress("probed", i + 1, len(passes))
    means = _means(rows)
    best = {f"{row['property']} {row['expert']} ({row['side']})": row["selectivity"] for row in means}
    return {
        "facts": {"inputs": sum(one.size for one in passes), **best},
        "tables": {"means": means, "probes": rows},
        "units": UNITS,
        "notes": notes,
    }


def features_of(model: UnifiedModel, seen: Seen, seed: int) -> dict[tuple[str, str], Floats]:
    """(block, expert or reference) → (N, F): what it takes of each input, of all layers of the block."""
    parts: dict[tuple[str, str], list[Floats]] = {}
    layers = [layer for layer in layers_of(model) if layer.layer in seen]
    for layer in layers:
        x_ND, block, rank = seen[layer.layer][X].astype(np.float64), block_name(layer.layer), 0
        for name in layer.roster.experts:
            a_RD = factors(layer, name).a_RD.double().cpu().numpy()
            parts.setdefault((block, name), []).append(x_ND @ a_RD.T)
            rank = max(rank, len(a_RD))
        drawn = np.random.default_rng(generator(seed, layer.layer, "content").initial_seed() % 2**63)
        parts.setdefault((block, RANDOM), []).append(x_ND @ drawn.normal(size=(rank, x_ND.shape[1])).T)
        parts.setdefault((block, INPUT), [x_ND])
    blocks, order = list(dict.fromkeys(block for block, _ in parts)), (*experts_of(model), RANDOM, INPUT)
    return {(block, name): np.concatenate(parts[block, name], -1) for block in blocks for name in order if (block, name) in parts}


def measured(x_NF: Floats, label_N: Names, group_N: NDArray[np.int64], seed: int) -> Floats:
    """(N,) for each input, 1 / (classes × its class's share) where a probe that saw none of its group names its class, else 0.

    Their mean is the balanced accuracy. Raises ValueError for fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    guess_N = np.full(len(label_N), "", dtype=label_N.dtype)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for learn, test in folds.split(x_NF, label_N, group_N):
        if len(set(label_N[learn])) < 2:
            guess_N[test] = label_N[learn][0]
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one that has not quite converged is a probe all the same
            guess_N[test] = probe.fit(x_NF[learn], label_N[learn]).predict(x_NF[test])
    count = Counter(label_N.tolist())
    weight_N = np.array([len(label_N) / (len(count) * count[label]) for label in label_N.tolist()])
    return np.where(guess_N == label_N, weight_N, 0.0)


def control_labels(label_N: Names, key_N: Names, seed: int) -> Names:
    """Classes in about the property's shares, dealt out to the keys."""
    ordered = np.sort(label_N)
    kinds = np.unique(key_N)
    order = np.argsort([zlib.crc32(f"{seed}/{key}".encode()) for key in kinds.tolist()])
    count = Counter(key_N.tolist())
    sizes = np.array([count[kinds[i]] for i in order.tolist()])
    middle = np.cumsum(sizes) - sizes / 2
    of = {str(kinds[i]): str(ordered[int(at)]) for i, at in zip(order.tolist(), middle.tolist(), strict=True)}
    return np.array([of[key] for key in key_N.tolist()], dtype=label_N.dtype)


def _properties(one: Pass, taken: Sample, frequency: Mapping[str, int], total: int) -> dict[str, Values]:
    lengths = [one.pack.lengths[i] for i in one.pack.place_S.tolist()]
    if one.side == "pair":
        return properties_of_pairs(taken, lengths, frequency, total)
    found = properties_of_texts(taken.queries if one.side == "query" else taken.documents, lengths, frequency, total)
    return found if one.side == "query" else {name: values for name, values in found.items() if name != "question"}


def _question(one: Pass, taken: Sample, values: Values) -> Question:
    """Classes that fewer than `FEWEST` inputs have are "", and left out."""
    label_N = np.array(classes(values))
    count = Counter(label_N.tolist())
    kept = np.array([label if count[label] >= FEWEST else "" for label in label_N.tolist()])
    texts = {"query": taken.queries, "document": taken.documents}.get(one.side) or tuple(f"{q} {d}" for q, d in taken.pair_texts)
    groups = [query for query, _, _ in taken.pairs] if one.side == "pair" else range(len(texts))
    return Question(kept, np.array(keys(texts)), np.array(list(groups)))


def _rows(features: Mapping[tuple[str, str], Floats], asked: Question, controls: int, seed: int) -> list[Row]:
    """One property in every block and expert."""
    own = asked.label_N != ""
    label_N, key_N, group_N = asked.label_N[own], asked.key_N[own], asked.group_N[own]
    drawn = [control_labels(label_N, key_N, seed + i) for i in range(controls)]
    drawn = [labels for labels in drawn if len(set(labels)) > 1]
    right, wrong = [], []
    for x_NF in features.values():
        right.append(measured(x_NF[own], label_N, group_N, seed))
        others = [measured(x_NF[own], labels, group_N, seed) for labels in drawn]
        wrong.append(np.mean(others, axis=0) if drawn else np.full(len(label_N), np.nan))
    right_FN, wrong_FN = np.array(right), np.array(wrong)
    low, high = interval(lambda at: (right_FN - wrong_FN)[:, at].mean(1), len(label_N), seed, RESAMPLES)
    rows: list[Row] = []
    for i, (block, name) in enumerate(features):
        score, control = float(right_FN[i].mean()), float(wrong_FN[i].mean())
        row: Row = {"block": block, "expert": name, "inputs": len(label_N), "chance": rounded(1 / len(set(label_N)))}
        row |= {"score": rounded(score), "control": rounded(control), "selectivity": rounded(score - control)}
        rows.append({**row, "low": rounded(low[i]), "high": rounded(high[i])})
    return rows


def _means(rows: Sequence[Row]) -> list[Row]:
    """The mean over blocks."""
    keys_of = ("task", "side", "property", "expert")
    found: list[Row] = []
    for key in dict.fromkeys(tuple(row[name] for name in keys_of) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in keys_of) == key]
        mean: Row = dict(zip(keys_of, key, strict=True))
        for column in ("chance", "score", "control", "selectivity"):
            mean[column] = mean_of(row[column] for row in own)
        found.append(mean)
    return found
