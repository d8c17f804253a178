"""JSON lines, read defensively: every bad line is one clear `file:line: …` error, or is skipped and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from twofold.errors import DataError

OnError: TypeAlias = Literal["raise", "skip"]

MAX_TEXT_BYTES = 10_000_000
"""A text of this size or more is refused: it costs a tokenizer seconds and gigabytes even when it is truncated afterwards."""

MAX_LINE_BYTES = 64 * 1024 * 1024
"""No line is read further than this, so that a file without line ends cannot fill the memory (JSON escapes may inflate a text sixfold)."""

_BOM = b"\xef\xbb\xbf"


class Refused(DataError):  # noqa: N818 - the errors of this project say what happened
    """One record that cannot be used. `kind` is the short name under which it is counted when it is skipped."""

    def __init__(self, where: str, kind: str, detail: str = "") -> None:
        super().__init__(f"{where}: {kind}{': ' if detail else ''}{detail}")
        self.kind = kind


class Empty(Refused):
    """A record that can be read and holds no text."""


class tolerate:  # noqa: N801 - used as a statement: `with tolerate(on_error, counts):`
    """Lets `Refused` through when `on_error` is "raise"; otherwise swallows it and counts its kind in `counts`. Reusable."""

    def __init__(self, on_error: OnError, counts: Counter[str] | None = None) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error is {on_error!r}; it is "raise" or "skip"')
        self.on_error = on_error
        self.counts: Counter[str] = Counter() if counts is None else counts

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not isinstance(error, Refused) or self.on_error == "raise":
            return False
        self.counts[error.kind] += 1
        return True


def read_jsonl(path: Path, on_error: OnError = "raise", counts: Counter[str] | None = None) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yields (line number from 1, byte offset of the line, record) for every line that holds a JSON object.

    Blank lines, a byte order mark and Windows line ends are accepted. Raises `DataError` for a missing file, and with `file:line:` for a
    line that is not UTF-8, not JSON, not an object or too long; with `on_error="skip"` such lines are counted in `counts` by kind.
    """
    tolerant = tolerate(on_error, counts)
    for number, offset, line in read_lines(path):
        record = None
        with tolerant:
            record = parse_line(line, f"{path}:{number}")
        if record is not None:
            yield number, offset, record


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields (line number, byte offset, raw line) for every line that is not blank; a longer line than `MAX_LINE_BYTES` comes cut."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            end = offset + len(line)
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                end += _skip_to_line_end(file.readline)
            if line.removeprefix(_BOM).strip():
                yield number, offset, line
            offset = end


def _skip_to_line_end(readline: Callable[[int], bytes]) -> int:
    skipped = 0
    while chunk := readline(MAX_LINE_BYTES):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def parse_line(line: bytes, where: str) -> dict[str, Any] | None:
    """One JSON object from one raw line; None for a blank one. Raises `Refused`, beginning with `where`."""
    text = decode(line, where)
    if not text:
        return None
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused(where, "not valid JSON", f"{error.msg} at column {error.colno}, is the line cut off?") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested thousands deep
        raise Refused(where, "not valid JSON", type(error).__name__) from None
    if not isinstance(record, dict):
        raise Refused(where, "not a JSON object", f"the line holds a {type(record).__name__}, expected {{…}}")
    return record


def decode(line: bytes, where: str) -> str:
    """The text of one raw line without byte order mark and line end. Raises `Refused` where it is too long or not UTF-8."""
    if len(line) > MAX_LINE_BYTES:
        raise Refused(where, "line too long", f"more than {MAX_LINE_BYTES:,} bytes")
    try:
        return line.removeprefix(_BOM).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise Refused(where, "not UTF-8", f"byte 0x{error.object[error.start]:02x} at position {error.start + 1}") from None


def clean(text: str, where: str) -> str:
    """Returns `text` unchanged if a tokenizer can be trusted with it.

    Raises `Refused`, beginning with `where`, for blank text (`Empty`), a NUL, a lone surrogate (JSON can spell one: "\\ud800") and for
    `MAX_TEXT_BYTES` or more.
    """
    if not text.strip():
        raise Empty(where, "empty text")
    return sound(text, where)


def sound(text: str, where: str) -> str:
    """As `clean`, but blank text may pass: for a title, which may be missing."""
    if "\0" in text:
        raise Refused(where, "NUL character", f"at position {text.index(chr(0)) + 1}")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise Refused(where, "lone surrogate", f"U+{ord(text[error.start]):04X} at position {error.start + 1}") from None
    if size >= MAX_TEXT_BYTES:
        raise Refused(where, "text too long", f"{size:,} bytes, at most {MAX_TEXT_BYTES - 1:,} are read")
    return text


def string_at(record: Mapping[str, Any], key: str, where: str) -> str:
    """The string under `key`. Raises `Refused` when it is missing or something else."""
    if key not in record:
        raise Refused(where, f'no "{key}"', f"the line has {', '.join(map(repr, record)) or 'no keys'}"[:200])
    value = record[key]
    if not isinstance(value, str):
        raise Refused(where, f'"{key}" is not a string', f"it is {value!r:.60}")
    return value


def id_at(record: Mapping[str, Any], key: str, where: str) -> str:
    """The id under `key`: a string, or a whole number written as one. Raises `Refused` for anything that a judgement file cannot name."""
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    identity = clean(string_at(record, key, where), where)
    if identity != identity.strip() or not set("\t\r\n").isdisjoint(identity):
        raise Refused(where, f'bad "{key}"', f"{identity!r:.60} begins or ends with a space, or holds a tab or a line end")
    return identity
