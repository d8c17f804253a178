"""What a file becomes before it is cut: one text with a title and headings. One file a format.

Every file here says which `SUFFIXES` it reads, and offers `read(content, where) -> Page`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import NamedTuple

from twofold import plugins
from twofold.data.jsonl import MAX_TEXT_BYTES, Empty, Refused, clean

FAMILY = "search/formats"


class Heading(NamedTuple):
    """From the character `at` on, until the next."""

    at: int
    path: str
    """The headings above, the outermost first, with `: ` between them; empty before the first."""


@dataclass(frozen=True)
class Page:
    """A document as text."""

    title: str
    text: str
    headings: Sequence[Heading] = ()
    first_line: int = 0
    """The line of the file that the text begins on, from 1; 0 where the text is not the file's own."""
    pages: Sequence[int] = ()
    """Characters at which printed pages begin, the first at 0."""
    facts: dict[str, str] | None = None
    """Metadata that the file itself has."""

    def place(self, at: int) -> str:
        """What to put behind the file's name to find a character: `:12` or `#page=3`."""
        if self.pages:
            return f"#page={bisect_right(self.pages, at)}"
        return f":{self.first_line + bisect_right(self._line_ends, at - 1)}" if self.first_line else ""

    @cached_property
    def _line_ends(self) -> list[int]:
        return [i for i, character in enumerate(self.text) if character == "\n"]


@cache
def suffixes() -> dict[str, str]:
    """File suffix → the format that reads it."""
    return {suffix: name for name in plugins.names(FAMILY) for suffix in plugins.load(FAMILY, name).SUFFIXES}


def read(name: str, content: bytes, where: str) -> Page:
    """A file's content by the format of this name. Raises `Refused`, beginning with `where`, for all that cannot be read.

    It is an `Empty` where there is no text in it. A parser that stumbles is no reason to stop: whatever it raises is a `Refused` too.
    """
    if not content.strip():  # a parser of PDF would call it broken
        raise Empty(where, "empty text")
    module: ModuleType = plugins.load(FAMILY, name)
    try:
        page: Page = module.read(content, where)
    except (Refused, ImportError):
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise Refused(where, f"not readable as {name}", f"{type(error).__name__}: {said}"[:200]) from error
    clean(page.text, where)
    return page


def decoded(content: bytes, where: str) -> str:
    """UTF-8 with or without a mark, any line ends. Raises `Refused` with `where` and the line, also for what is too long."""
    if len(content) >= MAX_TEXT_BYTES:
        raise Refused(f"{where}:1", "text too long", f"{len(content):,} bytes, at most {MAX_TEXT_BYTES - 1:,} are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused(f"{where}:{line}", "not UTF-8", f"byte 0x{content[error.start]:02x}") from None
    if "\0" in text:
        at = text.index("\0")
        raise Refused(f"{where}:{text.count(chr(10), 0, at) + 1}", "NUL character", "a binary file?")
    return text.replace("\r\n", "\n").replace("\r", "\n")
