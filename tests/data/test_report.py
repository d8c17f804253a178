from __future__ import annotations

from dataclasses import replace

import pytest

from tests.data.test_findings import DEMANDS, FINDINGS, LIMITS, facts, sample, splits
from twofold.data.check import Facts
from twofold.data.findings import judge
from twofold.data.report import WIDTH, lines, short


@pytest.mark.parametrize("counted", [row[0] for row in FINDINGS], ids=[row[2] for row in FINDINGS])
def test_every_line_fits_the_screen_and_every_finding_is_there(counted: Facts) -> None:
    found = judge(counted, LIMITS, DEMANDS)
    shown = list(lines(counted, LIMITS, found))
    assert all(len(line) <= WIDTH for line in [*shown, *short(counted, LIMITS, found)])
    whole = " ".join(" ".join(shown).split())
    assert all(finding.text in whole and finding.advice in whole for finding in found)


def test_large_numbers_fit_too() -> None:
    large = facts(documents=123_456_789, splits=splits(queries=12_345_678, positives=123_456_789, zeros=123_456_789))
    assert all(len(line) <= WIDTH for line in lines(large, LIMITS, []))


def test_nothing_to_complain_about_is_said() -> None:
    assert list(lines(facts(), LIMITS, []))[-1] == "nothing to complain about"


def test_the_short_form_counts_notes_and_shows_the_rest() -> None:
    counted = facts(sample=sample(document=300), repeats=1, test_in_train=2)
    shown = list(short(counted, LIMITS, judge(counted, LIMITS, DEMANDS)))
    assert shown[0] == "toy: 5,000 documents; queries: 1,000 train, 100 dev, 100 test"
    assert any(line.startswith("warning  100% of the documents") for line in shown)
    assert shown[-1] == "2 notes more: twofold check shows them"
    assert "cut" not in " ".join(short(replace(counted, sample=None), LIMITS, []))
