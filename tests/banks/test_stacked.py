"""What stacked banks share: a bank may make its matrices from other parameters, and what it keeps notices a change of any of them."""

from __future__ import annotations

import pytest
import torch

from twofold import plugins
from twofold.banks._stacked import StackedBank, drawn_a

STACKED = [name for name in plugins.names("banks") if isinstance(plugins.build_plugin("banks", name, {}, d_in=4, d_out=4, ranks={"a": 2}, scales={"a": 1.0}, layer="l", seed=0), StackedBank)]  # fmt: skip  # noqa: E501


def test_a_start_depends_on_the_names_only_and_is_bounded() -> None:
    assert torch.equal(drawn_a(3, 16, 0, "layer", "e"), drawn_a(3, 16, 0, "layer", "e"))
    assert not torch.equal(drawn_a(3, 16, 0, "layer", "e"), drawn_a(3, 16, 0, "layer", "f"))
    assert 0.2 < drawn_a(30, 16, 0, "layer", "e").abs().max() <= 0.25  # 1 / √16


@pytest.mark.parametrize("name", STACKED)
def test_what_is_kept_in_eval_notices_every_parameter(name: str) -> None:
    bank = plugins.build_plugin("banks", name, {}, d_in=4, d_out=5, ranks={"a": 2, "b": 2}, scales={"a": 1.0, "b": 2.0}, layer="l", seed=0)
    bank.eval()
    x, weight_E = torch.randn(1, 3, 4), torch.tensor([0.7, 0.4])
    with torch.no_grad():
        for changed in bank.parameters():
            changed.add_(torch.randn(changed.shape))
            y = bank.up(torch.zeros(3, 5), bank.down(x, ("a", "b")), weight_E[None], ("a", "b"))
            fresh = plugins.build_plugin("banks", name, {}, d_in=4, d_out=5, ranks=bank.ranks, scales=bank.scales, layer="l", seed=0)
            fresh.load_state_dict(bank.state_dict())
            torch.testing.assert_close(y, x[0] @ fresh.delta(weight_E, ("a", "b")).t())
