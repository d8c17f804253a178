"""The canary of a saved model: a few numbers that it gave when it was saved, and gives again when it is opened.

Experts that are loaded but not applied look like a mediocre model; so the numbers without them are kept too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from twofold.core.inject import mixtures
from twofold.errors import CheckpointError
from twofold.model.unified import UnifiedModel
from twofold.tasks import kind_of, variant_of

TEXT = "The body makes vitamin D in the skin when sunlight reaches it."
PAIR = ("how does the body get vitamin D", TEXT)
FEATURES = 8

TOLERANCE = 1e-3
"""Largest difference that counts as the same model, of a feature of the unit vector, or relative to a score above 1."""
HALF_TOLERANCE = 3e-2
"""The same where either side computes in half precision."""
NOISE = 2e-5
"""Differences between machines in fp32, below which nothing is said."""

Numbers = dict[str, list[float]]
"""Task → the first features of the vector of `TEXT`, or the score of `PAIR`."""


def record(model: UnifiedModel) -> dict[str, Any]:
    """The model's numbers as they are, without its experts (None where it has none), and the precision they were computed in."""
    with without_experts(model) as there_are_some:
        bare = numbers(model) if there_are_some else None
    return {"precision": model.spec.precision, "numbers": numbers(model), "bare": bare}


def check(model: UnifiedModel, expected: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError if the model gives other numbers than those recorded, saying so where they are the bare backbone's."""
    found = numbers(model)
    exact = model.spec.precision == expected["precision"] == "fp32"
    tolerance, noise = (TOLERANCE, NOISE) if exact else (HALF_TOLERANCE, HALF_TOLERANCE)
    for task, wanted in expected["numbers"].items():
        if task not in found or len(found[task]) != len(wanted):
            raise CheckpointError(f"{where}: the canary has numbers for the task {task!r}, and the model has {sorted(found)}")
        off = distance(found[task], wanted)
        bare = expected["bare"] and expected["bare"].get(task)
        if bare and off > noise and distance(found[task], bare) < off:
            raise CheckpointError(f"{where}: the experts are loaded but not applied: {task} gives the bare backbone's numbers")
        if not off <= tolerance:
            message = f"{task} of a fixed text gives other numbers than when it was saved (off by {off:.1e}, {tolerance:.0e} is allowed)"
            raise CheckpointError(f"{where}: {message}: another backbone, tokenizer or version of a library?")


def numbers(model: UnifiedModel) -> Numbers:
    """What the model gives for the fixed text and the fixed pair; nothing is counted as truncated."""
    counted, found = dict(model.truncated), {}
    for name in model.tasks:
        if kind_of(name) == "retrieve":
            found[name] = [float(value) for value in model.encode([TEXT], variant=variant_of(name))[0, :FEATURES]]
        elif kind_of(name) == "rerank":
            found[name] = [float(model.score([PAIR], variant=variant_of(name))[0])]
        elif kind_of(name) == "classify":
            found[name] = [float(model.predict(name, [TEXT])[0].probability)]
        elif kind_of(name) == "answer":
            found[name] = [float(model.predict(name, [PAIR])[0][0].score)]
    model.truncated = counted
    return found


def distance(found: list[float], wanted: list[float]) -> float:
    """The largest difference, relative to the size of what is larger than 1; infinite where a value is not a number."""
    off = [abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, wanted, strict=True)]
    return max(off) if all(value == value for value in off) else float("inf")


@contextmanager
def without_experts(model: UnifiedModel) -> Iterator[bool]:
    """The bare backbone for a while; yields whether there were any experts. Not for a model that other threads use."""
    layers = list(mixtures(model.backbone.model))
    kept = [layer.roster for layer in layers]
    try:
        for layer in layers:
            layer.roster = replace(layer.roster, sees=dict.fromkeys(layer.roster.sees, ()))
        yield bool(layers)
    finally:
        for layer, roster in zip(layers, kept, strict=True):
            layer.roster = roster
