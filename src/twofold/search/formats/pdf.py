"""PDF, by pypdf: the text of its pages; a scanned one has none and is refused."""

from __future__ import annotations

import io
import logging

from twofold.data.jsonl import MAX_TEXT_BYTES, Refused
from twofold.errors import ConfigError
from twofold.search.formats import Page

SUFFIXES = (".pdf",)


def read(content: bytes, where: str) -> Page:
    """Raises `Refused` for a file that is locked, holds no text or too much."""
    try:
        from pypdf import PdfReader
    except ImportError:
        raise ConfigError(f"{where}: reading PDF needs pypdf: pip install 'twofold[index]'") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every oddity of a file, and files are odd
    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Refused(where, "locked", "the file asks for a password")
    parts: list[str] = []
    pages: list[int] = []
    size = 0
    for page in reader.pages:
        words = _sound(page.extract_text() or "").strip()
        pages.append(size)
        parts.append(words)
        size += len(words) + 2
        if size >= MAX_TEXT_BYTES:
            raise Refused(where, "text too long", f"more than {MAX_TEXT_BYTES - 1:,} characters")
    text = "\n\n".join(parts)
    if not text.strip():
        raise Refused(where, "no text", f"{len(parts)} pages of pictures? It needs to be read by OCR first")
    title = _sound(str((reader.metadata and reader.metadata.title) or "")).strip()
    return Page(" ".join(title.split()), text, pages=pages)


def _sound(text: str) -> str:
    """Without NULs and halves of characters, which odd fonts give."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
