"""Answers to queries: what `metadata.answers` of a queries.jsonl says, and where in a document their words stand.

The layout is BEIR's, whose queries may carry `metadata`; `answers` there are strings, or SQuAD's objects with a `text`
(Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twofold.data.jsonl import OnError, Refused, clean, read_jsonl, tolerate
from twofold.records import Document, Place


def read_answers(
    path: Path, queries: Container[str], on_error: OnError = "raise", counts: Counter[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Query id → its answers, each once, for those of `queries` that have some.

    Lines that are no query were complained of by `read_queries`. Raises `DataError` with `file:line:` for answers that are no list of
    texts, or skips and counts them.
    """
    tolerant = tolerate(on_error, counts)
    answers: dict[str, tuple[str, ...]] = {}
    for number, _, record in read_jsonl(path, "skip"):
        identity, about = str(record.get("_id")), record.get("metadata")
        if isinstance(about, Mapping) and "answers" in about and identity in queries:
            with tolerant:
                found = tuple(dict.fromkeys(_texts(about["answers"], f"{path}:{number}")))
                answers |= {identity: found} if found else {}
    return answers


def _texts(given: Any, where: str) -> Iterator[str]:
    if not isinstance(given, list):
        raise Refused(where, "bad answers", f"{given!r:.60} is not a list of texts")
    for one in given:
        text = one.get("text") if isinstance(one, Mapping) else one
        if not isinstance(text, str):
            raise Refused(where, "bad answers", f"{one!r:.60} is not a text")
        yield clean(text, where)


def places(document: Document, answers: Sequence[str]) -> tuple[Place, ...]:
    """Where the answers stand in the document's body, not in its title: whole words where there are such, else any."""
    body, start = document.body, max(document.text_at, 0)
    return tuple(dict.fromkeys(place for answer in answers for place in _places(body, answer, start)))


def _places(body: str, answer: str, start: int) -> list[Place]:
    found, at = [], body.find(answer, start)
    while at >= 0:
        found.append((at, at + len(answer)))
        at = body.find(answer, at + 1)
    return [place for place in found if _whole(body, *place)] or found


def _whole(body: str, start: int, end: int) -> bool:
    """Whether no word is cut: an answer "1" is not found in "1973"."""
    before = start and body[start - 1].isalnum() and body[start].isalnum()
    behind = end < len(body) and body[end].isalnum() and body[end - 1].isalnum()
    return not before and not behind
