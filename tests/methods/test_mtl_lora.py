"""MTL-LoRA: each task's way through what they share, which folds."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.methods.joint import joint, train
from tests.tiny import tiny_pack
from tests.tiny_trial import stirred
from twofold.core.inject import mixtures
from twofold.model.folding import fold, unfold

TASKS = ("retrieve", "rerank")


def test_a_layer_is_the_papers_sum(tmp_path: Path) -> None:
    model = stirred(joint(tmp_path, "mtl_lora", {"rank": 3}).model, size=0.3).eval()
    layer = next(mixtures(model.backbone.model))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    layer.register_forward_hook(lambda _, x, y: seen.append((x[0][0], y[0])))
    bank, table = layer.bank, layer.router.score
    with torch.no_grad():
        for task in TASKS:
            model.backbone(tiny_pack((5, 2)), task)
            x_TD, y_TD = seen.pop()
            weight = torch.cat([table[f"{task}>{task}-{e}"] for e in range(3)]).div(0.1).softmax(0)  # type: ignore[index]
            low = x_TD @ bank.A.t() @ bank.transform[task].t()  # type: ignore[index,operator,union-attr]
            want = layer.linear(x_TD) + sum(2.0 * weight[e] * low @ bank.up_of[str(e)].t() for e in range(3))  # type: ignore[index]
            torch.testing.assert_close(y_TD, want, rtol=1e-4, atol=1e-4)


def test_training_moves_the_tasks_apart_and_it_folds(tmp_path: Path) -> None:
    setup = joint(tmp_path, "mtl_lora", {"rank": 3}, steps=3)
    notes = train(setup)
    assert set(notes.reports[0].norm) == {"bank", "router", "head:rerank"}
    backbone, pack = setup.model.backbone, tiny_pack((5, 3))
    layer = next(mixtures(backbone.model))
    assert not torch.equal(layer.bank.transform["retrieve"], layer.bank.transform["rerank"])  # type: ignore[index,union-attr]
    assert not torch.equal(layer.bank.up_of["0"], layer.bank.up_of["1"])  # type: ignore[index,union-attr]
    with torch.no_grad():
        want = {task: backbone(pack, task)[0] for task in TASKS}
        assert not torch.allclose(want["retrieve"], want["rerank"])
        for task in TASKS:
            fold(backbone.model, task)
            torch.testing.assert_close(backbone(pack, task)[0], want[task], rtol=0, atol=2e-5)
        unfold(backbone.model)
