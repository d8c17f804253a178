"""The nearest valid name to a misspelt one, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` most likely meant: the best ratio of matching letters, case ignored; None if none looks alike."""
    best, best_ratio = None, 0.5
    for candidate in known:
        ratio = SequenceMatcher(None, name.lower(), candidate.lower()).ratio()
        if ratio > best_ratio:
            best, best_ratio = candidate, ratio
    return best


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One sentence for an error: what is unknown, the value, the nearest valid name, and all of them."""
    known = sorted(known)
    guess = nearest(name, known)
    hint = f"did you mean {guess!r}? There is" if guess else "there is"
    return f"unknown {what} {name!r}; {hint}: {', '.join(known) or 'none'}"
