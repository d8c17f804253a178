"""Scores between 0 and 1 keep their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tiny_trial import tiny_unified, write_backbone
from twofold.model.system import System
from twofold.serve.relevance import relevance


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("relevance") / "backbone")


@pytest.mark.parametrize(
    ("options", "middle"), [({"head": "maxsim"}, 0.5), ({"head": "linear"}, 0.5), ({"head": "maxsim", "loss": "bce"}, 0.5)]
)
def test_between_nought_and_one_in_order(options: dict[str, str], middle: float, backbone: Path) -> None:
    scores = np.array([-19.0, -3.0, 0.0, 9.0, 19.0], dtype=np.float32)
    found = relevance(System.of(tiny_unified(backbone, rerank=options)), scores)
    assert (np.diff(found) > 0).all() and found[2] == middle and found[0] >= 0 and found[-1] <= 1


def test_a_scaled_cosine_is_not_squeezed_into_the_end(backbone: Path) -> None:
    found = relevance(System.of(tiny_unified(backbone)), np.array([16.0, 18.0], dtype=np.float32))
    assert np.allclose(found, [0.9, 0.95])
