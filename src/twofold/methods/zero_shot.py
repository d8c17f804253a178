"""The frozen backbone on both tasks: its cosine for retrieval, the warm start of the pair score for reranking. Nothing is trained."""

from __future__ import annotations

from twofold.methods import Member, Method


def build(*, tasks: tuple[str, ...]) -> Method:
    """No options."""
    return Method("zero_shot", (Member("unified", tasks, ()),))
