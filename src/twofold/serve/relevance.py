"""A pair score as a number between 0 and 1, which is what other rerankers' clients expect; the order stays.

A scaled cosine becomes (1 + cosine) / 2, since its sigmoid would be 1 for all but the worst; any other score goes through the sigmoid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.model.system import System
from twofold.tasks import task_name
from twofold.tasks.rerank import RerankTask


def relevance(system: System, score_N: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) in fp64, in which a sigmoid keeps more of the order than in fp32."""
    scores = score_N.astype(np.float64)
    task = system.reranker.tasks[task_name("rerank", system.variant)]
    if isinstance(task, RerankTask) and task.head in ("maxsim", "cosine") and task.bias is None and task.log_scale is not None:
        return np.asarray(np.clip((1 + scores / float(task.log_scale.detach().exp())) / 2, 0, 1))
    return np.asarray(1 / (1 + np.exp(-np.clip(scores, -500, 500))))
