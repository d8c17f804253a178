"""Rules of the methods in their slow plain form: one number, one expert, one token after the other, as the formulas read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def pcgrad(gradients: Sequence[Sequence[float]]) -> list[float]:
    """Yu et al. 2020, algorithm 1, the others met in their order."""
    total = [0.0] * len(gradients[0])
    for i, gradient in enumerate(gradients):
        own = list(gradient)
        for j, other in enumerate(gradients):
            if i != j and dot(own, other) < 0:
                factor = dot(own, other) / dot(other, other)
                own = [x - factor * y for x, y in zip(own, other, strict=True)]
        total = [x + y for x, y in zip(total, own, strict=True)]
    return total


def softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    raised = [math.exp(value - top) for value in values]
    return [value / math.fsum(raised) for value in raised]


def sparsemax(scores: Sequence[float]) -> list[float]:
    """By halving the interval in which the threshold lies."""
    low, high = min(scores) - 1.0, max(scores)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.fsum(max(score - middle, 0) for score in scores) > 1 else (low, middle)
    return [max(score - high, 0) for score in scores]


def best(scores: Sequence[float], k: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda i: -scores[i])[:k])


def ranks_as_experts(x_TD: Tensor, a_RD: Tensor, b_DR: Tensor, score_TR: Tensor, shift_R: Sequence[float], k: int, scale: float) -> Tensor:
    """SMoRA: of every token the k ranks with the largest σ(score) + shift, weighted by σ(score) so that the weights sum to k."""
    rows = []
    for x_D, score_R in zip(x_TD, score_TR, strict=True):
        gate = [1 / (1 + math.exp(-score)) for score in score_R.tolist()]
        chosen = best([g + s for g, s in zip(gate, shift_R, strict=True)], k)
        whole = math.fsum(gate[r] for r in chosen)
        y = torch.zeros(len(b_DR))
        for r in chosen:
            y = y + scale * k * gate[r] / whole * b_DR[:, r] * (a_RD[r] @ x_D)
        rows.append(y)
    return torch.stack(rows)


def switch_balance(choices: Sequence[Sequence[int]], probabilities: Sequence[Sequence[float]]) -> float:
    """E · Σ_e f_e P_e over tokens: f_e the part of all choices that fell on e, P_e the mean probability."""
    experts, made = range(len(probabilities[0])), sum(len(each) for each in choices)
    share = [sum(e in each for each in choices) / made for e in experts]
    mean = [math.fsum(row[e] for row in probabilities) / len(probabilities) for e in experts]
    return len(share) * dot(share, mean)


def variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def symmetric_kl(mean: float, var: float, other: float, other_var: float, points: int = 20001) -> float:
    """∫ (p − q) log(p / q) of two Gaussians, by a sum over points."""
    width = 12 * math.sqrt(max(var, other_var)) + abs(mean - other)
    step, total = 2 * width / points, 0.0
    for i in range(points):
        x = (mean + other) / 2 - width + (i + 0.5) * step
        logs = [-((x - m) ** 2) / (2 * v) - math.log(2 * math.pi * v) / 2 for m, v in ((mean, var), (other, other_var))]
        total += (math.exp(logs[0]) - math.exp(logs[1])) * (logs[0] - logs[1]) * step
    return total


def growth(active: Sequence[int], most: Sequence[int], need: Sequence[float], due: int, penalty: float) -> list[int]:
    """DR-LoRA's rule as in `methods/dr_lora.py`: each rank to the largest need / (ranks + 1)^penalty."""
    grown = list(active)
    while sum(grown) < due:
        open_ = [e for e in range(len(grown)) if grown[e] < most[e]]
        grown[max(open_, key=lambda e: (need[e] / (grown[e] + 1) ** penalty, -e))] += 1
    return grown
