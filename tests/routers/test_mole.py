"""`mole`: the gate's formula, its entropy at the start, masking."""

from __future__ import annotations

import math

import pytest
import torch

from tests.reference import experts as reference
from tests.routers.roster import EXPERTS, LENGTHS, ROSTER, build, widen
from twofold.core.routing import Batch, Router
from twofold.routers.mole import MoleRouter


def states(seed: int = 0) -> torch.Tensor:
    """z of three experts of rank 2, 3 and 2."""
    return torch.randn(1, sum(LENGTHS), 7, generator=torch.Generator().manual_seed(seed))


def gates(router: Router, task: str = "rerank") -> torch.Tensor:
    z = states()
    weight, level = router(z, z, Batch(task, LENGTHS), ROSTER.visible((task,)))
    assert level == "sequence"
    return weight.detach()


@pytest.mark.parametrize("masked", [(), ("b",), ("a", "c")])
def test_it_is_the_formula(masked: tuple[str, ...]) -> None:
    router = widen(build("mole", masked=masked))
    assert isinstance(router, MoleRouter)
    gate_ER = torch.cat([router.gate[name] for name in EXPERTS], dim=1).tolist()
    temperature = float(router.log_temperature.detach().exp())
    assert abs(temperature - 1) > 0.1
    rows = [states()[0, :4].mean(0), states()[0, 4:].mean(0)]
    want = [reference.mole(row.tolist(), gate_ER, temperature, [name not in masked for name in EXPERTS]) for row in rows]
    torch.testing.assert_close(gates(router), torch.tensor(want))


def test_the_others_keep_their_proportions_when_one_is_masked() -> None:
    whole, less = gates(widen(build("mole"))), gates(widen(build("mole", masked=("a",))))
    assert (less[:, 0] == 0).all()
    torch.testing.assert_close(less[:, 1:], whole[:, 1:] / whole[:, 1:].sum(-1, keepdim=True))
    with pytest.raises(ValueError, match=r"masked \['z'\]; the experts are"):
        build("mole", masked=("z",))


def test_it_starts_near_uniform_and_a_low_temperature_sharpens_it() -> None:
    def entropy(router: Router) -> float:
        weight = gates(router)
        return float(-(weight * weight.log()).sum(-1).mean())

    assert entropy(build("mole")) == pytest.approx(math.log(3), abs=0.01)
    sharp = build("mole")
    assert isinstance(sharp, MoleRouter)
    sharp.log_temperature.data.fill_(-4.0)
    assert entropy(sharp) < 0.9 * math.log(3)
