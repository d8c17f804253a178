"""How much the experts' updates overlap: principal angles of their column and row spaces, and the cosine of the updates themselves.

For ΔW_i = B_i A_i with orthonormal bases Q_i of its column space (what it writes) and P_i of its row space (what it reads), the singular
values of Q_iᵀ Q_j are the cosines of the principal angles (Björck and Golub 1973), 0° where a direction is shared, 90° where none is.
`overlap` = ‖Q_iᵀ Q_j‖²_F / min(r_i, r_j), 0 to 1, the measure of Hu et al. 2022 (arXiv 2106.09685, section 7.2). Two random subspaces
of d dimensions overlap by max(r_i, r_j) / d on average; the table has drawn ones beside. A's of independent experts may look alike only
because all started alike, so the second reference is a twin: the same training with another seed, whose expert of the same name learnt
the same.

⟨ΔW_i, ΔW_j⟩ / (‖ΔW_i‖ ‖ΔW_j‖) with ⟨ΔW_i, ΔW_j⟩ = Σ (B_iᵀ B_j) ⊙ (A_i A_jᵀ), never larger than r × r. Stable rank is ‖ΔW‖²_F / ‖ΔW‖²_2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from twofold.core.routing import generator
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.folder import load
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.probes import Progress, Report, Row, quiet
from twofold.probes._looking import SMALL, Factors, experts_of, factors, layers_of, one_mixture
from twofold.probes._numbers import mean_of, rounded

UNITS = {
    "column_overlap": "overlap of what the two experts write, 0 to 1",
    "row_overlap": "overlap of what they read, 0 to 1",
    "column_degrees": "mean principal angle of the column spaces, degrees",
    "row_degrees": "mean principal angle of the row spaces, degrees",
    "smallest_column_degrees": "smallest principal angle of the column spaces, degrees",
    "smallest_row_degrees": "smallest principal angle of the row spaces, degrees",
    "random_column_overlap": "mean overlap of random column spaces of the same ranks",
    "random_row_overlap": "mean overlap of random row spaces of the same ranks",
    "cosine": "cosine of the two updates as vectors, −1 to 1",
    "norm": "Frobenius norm of the update, scale included",
    "stable_rank": "‖ΔW‖²_F / ‖ΔW‖²_2",
    "kind": "pair: two experts of this model; twin: an expert and the same one of the model trained with another seed",
}
COLUMNS = ("column_overlap", "row_overlap", "column_degrees", "row_degrees", "random_column_overlap", "random_row_overlap", "cosine")


class Update(NamedTuple):
    """One expert's update of one layer, decomposed. r its rank (of ΔW, not of the matrices that it is stored as)."""

    parts: Factors
    column_Dr: Tensor
    row_Dr: Tensor
    value_r: Tensor
    """Singular values."""


def run(
    system: System,
    dataset: Dataset,  # noqa: ARG001 (weights are looked at, and no text)
    *,
    seed: int = 0,
    progress: Progress = quiet,
    twin: str = "",
    draws: int = 5,
) -> Report:
    """`twin`: the folder of the model of the same training with another seed; `draws` of random subspaces for each pair and layer.

    Raises ConfigError for a twin that has no layer and expert in common with the model.
    """
    model = one_mixture(system, "angles")
    other_model = load(twin, precision="fp32") if twin else None
    own, other = updates(model), updates(other_model) if other_model else {}
    if twin and not own.keys() & other.keys():
        raise ConfigError(f"angles: {twin!r} has no expert in the same layer as this model")
    rows, draw = [], generator(seed, "angles")
    pairs = list(_pairs(own, other, experts_of(model)))
    for i, (layer, kind, a, b, one, two) in enumerate(pairs):
        rows.append({"layer": layer, "kind": kind, "a": a, "b": b, **_compare(one, two, draws, draw)})
        progress("pairs of experts", i + 1, len(pairs))
    single: list[Row] = [
        {"layer": layer, "expert": name, "rank": len(each.value_r), "norm": _norm(each), "stable_rank": _stable_rank(each)}
        for (layer, name), each in own.items()
    ]
    notes = [] if twin else ["no twin was given: that experts are alike may come from their start; compare with another seed's model"]
    if other_model is not None and other_model.spec.seed == model.spec.seed:
        notes.append(f"the twin started from the same seed ({model.spec.seed}): its A's are near the model's because they began there")
    facts: Row = {"layers": len(layers_of(model)), "experts": len(experts_of(model))}
    for kind in ("pair", "twin"):
        facts |= {f"{kind}_{column}": _mean(rows, kind, column) for column in COLUMNS}
    return {"facts": facts, "tables": {"pairs": rows, "experts": single, "means": _by_pair(rows)}, "units": UNITS, "notes": notes}


def updates(model: UnifiedModel) -> dict[tuple[str, str], Update]:
    """(layer, expert) → its update, for all experts that are in a layer."""
    return {(layer.layer, name): decomposed(factors(layer, name)) for layer in layers_of(model) for name in layer.roster.experts}


def decomposed(parts: Factors) -> Update:
    """Bases and singular values of B A, by an r × r decomposition; directions that are numerically zero do not count."""
    (column_Dr, left_rr), (row_Dr, right_rr) = torch.linalg.qr(parts.b_DR.double()), torch.linalg.qr(parts.a_RD.T.double())
    u, value, vT = torch.linalg.svd(left_rr @ right_rr.T)
    kept = value > SMALL * value.max().clamp_min(SMALL)
    return Update(parts, column_Dr @ u[:, kept], row_Dr @ vT.T[:, kept], value[kept])


def angles(one_Dr: Tensor, two_Dr: Tensor) -> Tensor:
    """Principal angles in degrees, ascending, of the spaces of two orthonormal bases.

    Small ones by their sines, since arccos loses half of its digits there (Knyazev and Argentati 2002, as SciPy does).
    """
    if one_Dr.shape[1] < two_Dr.shape[1]:
        one_Dr, two_Dr = two_Dr, one_Dr
    if not two_Dr.shape[1]:
        return torch.zeros(0, dtype=torch.float64)
    product = one_Dr.T @ two_Dr
    cosine = torch.linalg.svdvals(product).clamp(max=1)
    sine = torch.linalg.svdvals(two_Dr - one_Dr @ product).clamp(max=1).flip(0)
    return torch.rad2deg(torch.where(cosine.square() >= 0.5, sine.asin(), cosine.acos()))


def overlap(one_Dr: Tensor, two_Dr: Tensor) -> float | None:
    """‖QᵀP‖²_F / min(r): 1 where one space lies in the other, 0 where they are orthogonal; None where one is empty."""
    ranks = min(one_Dr.shape[1], two_Dr.shape[1])
    return float((one_Dr.T @ two_Dr).square().sum()) / ranks if ranks else None


def cosine(one: Factors, two: Factors) -> float | None:
    """Of the two updates as vectors; None where one is zero."""

    def product(a: Factors, b: Factors) -> float:
        return float(((a.b_DR.double().T @ b.b_DR.double()) * (a.a_RD.double() @ b.a_RD.double().T)).sum())

    size = (product(one, one) * product(two, two)) ** 0.5
    return product(one, two) / size if size > 0 else None


def _pairs(
    own: Mapping[tuple[str, str], Update], other: Mapping[tuple[str, str], Update], experts: Sequence[str]
) -> Iterator[tuple[str, str, str, str, Update, Update]]:
    for layer in dict.fromkeys(layer for layer, _ in own):
        here = [name for name in experts if (layer, name) in own]
        for a, b in itertools.combinations(here, 2):
            yield layer, "pair", a, b, own[layer, a], own[layer, b]
        for name in here:
            if (layer, name) in other:
                yield layer, "twin", name, name, own[layer, name], other[layer, name]


def _compare(one: Update, two: Update, draws: int, draw: torch.Generator) -> Row:
    row: Row = {"rank": min(len(one.value_r), len(two.value_r)), "cosine": rounded(cosine(one.parts, two.parts))}
    for what in ("column", "row"):
        a_Dr, b_Dr = getattr(one, f"{what}_Dr"), getattr(two, f"{what}_Dr")
        found = angles(a_Dr, b_Dr)
        row[f"{what}_overlap"] = rounded(overlap(a_Dr, b_Dr))
        row[f"{what}_degrees"] = rounded(float(found.mean())) if len(found) else None
        row[f"smallest_{what}_degrees"] = rounded(float(found.min())) if len(found) else None
        row[f"random_{what}_overlap"] = _random_overlap(a_Dr, b_Dr, draws, draw)
    return row


def _random_overlap(a_Dr: Tensor, b_Dr: Tensor, draws: int, draw: torch.Generator) -> float | None:
    def basis(like: Tensor) -> Tensor:
        found: Tensor = torch.linalg.qr(torch.randn(like.shape, generator=draw, dtype=torch.float64))[0]
        return found

    return mean_of([overlap(basis(a_Dr), basis(b_Dr)) for _ in range(draws)])


def _norm(one: Update) -> float | None:
    return rounded(float(one.value_r.square().sum().sqrt()))


def _stable_rank(one: Update) -> float | None:
    return rounded(float(one.value_r.square().sum() / one.value_r.max().square())) if len(one.value_r) else None


def _mean(rows: Sequence[Row], kind: str, column: str, of: tuple[str, str] | None = None) -> float | None:
    return mean_of(row[column] for row in rows if row["kind"] == kind and (of is None or (row["a"], row["b"]) == of))


def _by_pair(rows: Sequence[Row]) -> list[Row]:
    """The means over layers for every pair of experts."""
    groups = dict.fromkeys((str(row["kind"]), str(row["a"]), str(row["b"])) for row in rows)
    return [{"kind": kind, "a": a, "b": b, **{column: _mean(rows, kind, column, (a, b)) for column in COLUMNS}} for kind, a, b in groups]
