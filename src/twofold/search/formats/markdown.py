"""Markdown: the title is the front matter's or the first heading, and every heading opens a section."""

from __future__ import annotations

import re

from twofold.search.formats import Heading, Page, decoded

SUFFIXES = (".md", ".markdown")
_FRONT = re.compile(r"---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)
_FACT = re.compile(r"([A-Za-z][\w-]*):[ \t]+([^\s\[{|>&*].*)")
_LINE = re.compile(r"^(?:(#{1,6})[ \t]+(\S.*?)[ \t#]*|[ \t]*(```+|~~~+).*)$", re.MULTILINE)


def read(content: bytes, where: str) -> Page:
    """Raises `Refused` for what is not UTF-8."""
    text = decoded(content, where)
    facts: dict[str, str] = {}
    first_line = 1
    if front := _FRONT.match(text):
        facts = {match[1]: match[2].strip().strip("\"'") for match in map(_FACT.fullmatch, (front[1] or "").splitlines()) if match}
        text, first_line = text[front.end() :], 1 + text.count("\n", 0, front.end())
    title, headings = facts.pop("title", ""), []
    above: list[tuple[int, str]] = []
    for at, level, words in _headings(text):
        if not title and level == 1:
            title = words
        above = [each for each in above if each[0] < level] + [(level, words)]
        headings.append(Heading(at, ": ".join(each for _, each in above if each != title)))
    return Page(title, text, headings, first_line, facts=facts)


def _headings(text: str) -> list[tuple[int, int, str]]:
    """(character, level, words) of every heading outside of fenced code."""
    found, fence = [], ""
    for line in _LINE.finditer(text):
        if line[3]:
            if not fence:
                fence = line[3]
            elif line[3].startswith(fence):
                fence = ""
        elif not fence:
            found.append((line.start(), len(line[1]), line[2]))
    return found
