"""Plain text: all of it, without a title."""

from __future__ import annotations

from twofold.search.formats import Page, decoded

SUFFIXES = (".txt", ".text", ".rst")


def read(content: bytes, where: str) -> Page:
    """Raises `Refused` for what is not UTF-8."""
    return Page("", decoded(content, where), first_line=1)
