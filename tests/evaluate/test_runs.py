"""Runs as ranked lists."""

from __future__ import annotations

from pathlib import Path

from twofold.evaluate.runs import drop_own_id, sha256, top, write_trec


def test_top_breaks_ties_by_id() -> None:
    assert top({"q": {"b": 1.0, "a": 1.0, "c": 2.0}}, 2) == {"q": {"c": 2.0, "a": 1.0}}


def test_own_id_is_dropped_unless_judged_relevant() -> None:
    run = {"q1": {"q1": 9.0, "d": 1.0}, "q2": {"q2": 9.0, "d": 1.0}, "q3": {"d": 1.0}, "q4": {"q4": 1.0}}
    kept, dropped = drop_own_id(run, {"q1": {"d": 1}, "q2": {"q2": 1}, "q4": {"q4": 0}})
    assert kept == {"q1": {"d": 1.0}, "q2": {"q2": 9.0, "d": 1.0}, "q3": {"d": 1.0}, "q4": {}}
    assert dropped == 2


def test_fingerprint_is_of_the_order() -> None:
    run = {"q": {"a": 2.0, "b": 1.0}}
    assert sha256(run) == sha256({"q": {"b": 0.5, "a": 0.7}})
    assert sha256(run) != sha256({"q": {"a": 1.0, "b": 2.0}})
    assert sha256(run) != sha256({"q": {"a": 2.0}, "p": {"b": 1.0}})


def test_trec_file(tmp_path: Path) -> None:
    write_trec({"q2": {"a": 0.5}, "q1": {"a": 0.25, "b": 1.0}}, tmp_path / "new" / "run.trec", "mine")
    assert (tmp_path / "new" / "run.trec").read_text() == "q1 Q0 b 1 1 mine\nq1 Q0 a 2 0.25 mine\nq2 Q0 a 1 0.5 mine\n"
