"""Seals: what was written is known again, what was not acknowledged is not missed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from twofold.errors import CheckpointError
from twofold.search.stores import _seals
from twofold.search.stores._seals import Ledger


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "table"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a").write_bytes(b"some bytes")
    (folder / "b").write_bytes(b"more bytes")
    (folder / "hint").write_text("1")
    return folder


def ledger(place: Path) -> Ledger:
    return Ledger(place, place.parent / "seals.jsonl", ("hint",))


def test_what_is_whole_passes(place: Path) -> None:
    first = ledger(place)
    first.verify()
    first.seal(1)
    (place / "hint").write_text("2")
    (place / "c").write_bytes(b"new")
    first.seal(2)
    again = ledger(place)
    again.verify()
    assert again.version == 2 and set(again.seals) == {"data/a", "b", "c"}


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.write_bytes(b"some bytez"), "its sha256"),
    (lambda path: path.write_bytes(b"some"), "4 bytes, 10 were written"),
    (lambda path: path.unlink(), "missing"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_changed_file_is_named(place: Path, change: Callable[[Path], object], said: str) -> None:
    ledger(place).seal(1)
    change(place / "data" / "a")
    with pytest.raises(CheckpointError, match=f"data/a: .*{said}"):
        ledger(place).verify()


def test_a_large_folder_is_hashed_on_demand(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger(place).seal(1)
    monkeypatch.setattr(_seals, "HASHED_UP_TO", 5)
    (place / "b").write_bytes(b"MORE bytes")
    ledger(place).verify()
    with pytest.raises(CheckpointError, match="b: changed"):
        ledger(place).verify(everything=True)


def test_a_line_cut_short_by_a_crash_is_passed_over_and_written_again(place: Path) -> None:
    ledger(place).seal(1)
    path = place.parent / "seals.jsonl"
    whole = path.read_bytes()
    (place / "c").write_bytes(b"new")
    ledger(place).seal(2)
    path.write_bytes(path.read_bytes()[: len(whole) + 20])
    torn = ledger(place)
    torn.verify()
    assert torn.version == 1 and "c" not in torn.seals
    torn.seal(2)
    assert ledger(place).version == 2 and "c" in ledger(place).seals


def test_a_changed_ledger_is_refused_with_its_line(place: Path) -> None:
    ledger(place).seal(1)
    path = place.parent / "seals.jsonl"
    path.write_bytes(path.read_bytes().replace(b"data/a", b"data/b", 1))
    with pytest.raises(CheckpointError, match=r"seals\.jsonl:\d: changed since it was written"):
        ledger(place)


def test_while_files_are_removed_a_missing_one_is_no_damage(place: Path) -> None:
    first = ledger(place)
    first.seal(1)
    first.clean()
    (place / "b").unlink()
    ledger(place).verify()
    first.rewrite(2)
    again = ledger(place)
    again.verify()
    assert set(again.seals) == {"data/a"} and again.version == 2 and not again.cleaning


def test_a_file_removed_while_it_is_looked_at_is_no_damage(place: Path) -> None:
    ledger(place).seal(1)
    reading = ledger(place)
    writing = ledger(place)
    writing.clean()
    (place / "b").unlink()
    writing.rewrite(2)
    reading.verify()
