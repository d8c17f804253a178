"""HTML, by selectolax: what a reader sees, without scripts and navigation; headings open sections."""

from __future__ import annotations

import re
from typing import Any

from twofold.data.jsonl import MAX_TEXT_BYTES, Refused
from twofold.errors import ConfigError
from twofold.search.formats import Heading, Page

SUFFIXES = (".html", ".htm", ".xhtml")
LEFT_OUT = ("script", "style", "noscript", "template", "nav", "svg", "iframe", "head")
BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "br", "dd", "details", "dialog", "div", "dl", "dt", "fieldset", "figcaption"),
        *("figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section"),
        *("summary", "table", "tr", "ul"),
    )
)
_CHARSET = re.compile(rb"charset=[\"']?([\w-]+)", re.IGNORECASE)
_SPACE = re.compile(r"\s+")


def read(content: bytes, where: str) -> Page:
    """Raises `Refused` for what is too long."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise ConfigError(f"{where}: reading HTML needs selectolax: pip install 'twofold[index]'") from None
    if len(content) >= MAX_TEXT_BYTES:
        raise Refused(f"{where}:1", "text too long", f"{len(content):,} bytes, at most {MAX_TEXT_BYTES - 1:,} are read")
    tree = LexborHTMLParser(_decoded(content))
    named = tree.css_first("title")
    title = _SPACE.sub(" ", named.text()).strip() if named is not None else ""
    body = tree.body
    if body is None:
        return Page(title, "")
    for unwanted in body.css(", ".join(LEFT_OUT)):
        unwanted.decompose()
    writer = _Writer(title)
    for node in body.traverse(include_text=True):
        writer.take(node)
    return Page(writer.title, "".join(writer.parts), writer.headings)


def _decoded(content: bytes) -> str:
    """By what the file says of itself, else UTF-8, else what browsers take."""
    named = _CHARSET.search(content[:2048])
    for encoding in ("utf-8-sig", named[1].decode() if named else "cp1252", "cp1252"):
        try:
            return content.decode(encoding).replace("\0", "")
        except (UnicodeDecodeError, LookupError):
            continue
    return content.decode("utf-8", errors="replace").replace("\0", "")


class _Writer:
    """Puts text nodes one after the other, with a line end between those of different blocks."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []
        self.size = 0
        self.block: int | None = None
        self.headings: list[Heading] = []
        self.above: list[tuple[int, str]] = []

    def take(self, node: Any) -> None:
        """One node of the tree, in the order of the file."""
        if node.tag == "-text":
            block, tag = _block_of(node)
            if block != self.block:
                self._break()
            self.block = block
            words = node.text_content or ""
            self._put(words if tag == "pre" else _SPACE.sub(" ", words))
        elif node.tag in BLOCKS:
            self._break()
            if node.tag[0] == "h" and node.tag[1:].isdigit():
                self._head(int(node.tag[1:]), _SPACE.sub(" ", node.text()).strip())

    def _head(self, level: int, words: str) -> None:
        self.title = self.title or words
        self.above = [each for each in self.above if each[0] < level] + [(level, words)]
        self.headings.append(Heading(self.size, ": ".join(each for _, each in self.above if each not in ("", self.title))))

    def _put(self, words: str) -> None:
        if not self.size or self.parts[-1].endswith(("\n", " ")):
            words = words.removeprefix(" ")
        if words:
            self.parts.append(words)
            self.size += len(words)

    def _break(self) -> None:
        if self.size and not self.parts[-1].endswith("\n"):
            self.parts.append("\n")
            self.size += 1


def _block_of(node: Any) -> tuple[int | None, str]:
    """The block that a text stands in, looked for a few steps up: who nests deeper than that has no blocks in mind."""
    for _ in range(20):
        node = node.parent
        if node is None:
            break
        if node.tag in BLOCKS:
            return node.mem_id, node.tag
    return None, ""
