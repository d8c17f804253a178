"""CKA of experts and of matrices of which it is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.probes.conftest import MakeSystem
from tests.probes.test_angles import copy_expert
from twofold.data.sources import Dataset
from twofold.probes.similarity import BASE, cka, gram, hsic, run


def test_two_equal_experts_say_the_same(make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    copy_expert(system, "embedding", "shared", factor=3.0)
    rows = run(system, dataset, split="train", queries=12)["tables"]["layers"]
    equal = [row["cka"] for row in rows if (row["a"], row["b"]) == ("embedding", "shared")]
    others = [row["cka"] for row in rows if (row["a"], row["b"]) == ("embedding", "reranking")]
    assert len(equal) == 12 * 3
    assert equal == pytest.approx([1.0] * len(equal), abs=1e-5)
    assert max(float(str(each)) for each in others) < 0.999
    assert {row["b"] for row in rows} == {BASE, "shared", "reranking"}


def test_experts_that_do_nothing_change_nothing_downstream(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(size=0.0), dataset, split="train", queries=12)
    assert [row["drift"] for row in report["tables"]["drift"]] == pytest.approx([1.0] * 36)
    assert report["facts"]["between_experts"] is None  # what is zero is like nothing
    moved = run(make(size=0.5), dataset, split="train", queries=12)
    assert float(str(moved["facts"]["drift_retrieve"])) < 0.99


def test_too_few_inputs_are_left_out(make: MakeSystem, dataset: Dataset) -> None:
    report = run(make(), dataset, queries=2)
    assert any("debiased CKA needs 4" in note for note in report["notes"])


def test_cka_does_not_see_rotation_and_scale() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 6)).astype(np.float32)
    turn, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    assert cka(gram(x), gram((3 * x @ turn + 1).astype(np.float32))) == pytest.approx(1, abs=1e-5)


def test_the_debiased_one_is_zero_where_nothing_is_shared() -> None:
    """Fewer inputs than features: plain CKA of independent data is near 1 here."""
    draw = np.random.default_rng(1)
    values, plain = [], []
    for _ in range(40):
        k, m = (gram(draw.normal(size=(20, 200)).astype(np.float32)) for _ in range(2))
        values.append(cka(k, m))
        plain.append((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))
    assert np.mean(plain) > 0.8
    assert abs(float(np.mean(values))) < 0.02  # type: ignore[arg-type]


def test_the_estimate_of_hsic_is_unbiased() -> None:
    """Against its definition as a mean over distinct inputs (Song et al. 2012, equation 2)."""
    draw = np.random.default_rng(2)
    k, m = (gram(draw.normal(size=(6, 3)).astype(np.float32)) for _ in range(2))
    n, total = 6, [0.0, 0.0, 0.0]
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if i != j and q == i and r == j:
                        total[0] += k[i, j] * m[i, j] / (n * (n - 1))
                    if len({i, j, q, r}) == 4:
                        total[1] += k[i, j] * m[q, r] / (n * (n - 1) * (n - 2) * (n - 3))
                if len({i, j, q}) == 3:
                    total[2] += k[i, j] * m[i, q] / (n * (n - 1) * (n - 2))
    assert hsic(k, m) == pytest.approx(total[0] + total[1] - 2 * total[2])
