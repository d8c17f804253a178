"""The page and its Markdown twin say what the cells say, and the page needs nothing else."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.study.planted import plant, planted_study
from twofold.errors import ConfigError
from twofold.study.blocks import Report
from twofold.study.evidence import Evidence
from twofold.study.file import Study, read
from twofold.study.report import report, write

GAINS = {"ours": {"dense": 0.06, "rerank": 0.0, "pipeline": 0.1}, "rival": {"dense": 0.0, "rerank": 0.0, "pipeline": 0.0}}
RULE = {"question": 2, "tested": "ours", "rivals": ["rival"]}
COMMITTED = ROOT / "docs" / "study"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    folder = tmp_path_factory.mktemp("report")
    study = planted_study(("ours", "rival"), study=RULE, compare=[{"what": "a < b & c", "a": "ours", "b": "rival", "decides": False}])
    plant(study, folder / "results" / "studies" / "planted", GAINS)
    return study, folder


@pytest.fixture(scope="module")
def written(planted: tuple[Study, Path]) -> tuple[Report, Path]:
    study, folder = planted
    found = report([study], folder / "results" / "studies")
    write(found, folder / "docs")
    return found, folder / "docs"


class Links(HTMLParser):
    """What a page would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.data: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [(tag, str(given[key])) for key in ("src", "href", "data", "action", "srcset", "poster") if given.get(key)]
        if given.get("download"):
            self.data[str(given["download"])] = base64.b64decode(str(given["href"]).partition("base64,")[2]).decode()


def test_the_page_loads_nothing(written: tuple[Report, Path]) -> None:
    text = (written[1] / "index.html").read_text()
    links = Links()
    links.feed(text)
    assert links.found and all(url.startswith(("data:", "#")) for _, url in links.found)
    assert not re.search(r"<script|@import|url\(|<link|<img|<iframe", text)
    assert [url for url in re.findall(r"https?://[^\"' <]+", text) if url != "http://www.w3.org/2000/svg"] == []


def test_a_smaller_study_stands_below_the_answer_and_decides_nothing(planted: tuple[Study, Path], tmp_path: Path) -> None:
    study, folder = planted
    small = planted_study(("ours", "rival"), study={**RULE, "name": "small", "beside": "three layers"})
    plant(small, folder / "results" / "studies" / "small", {**GAINS, "rival": {"dense": 0.12, "rerank": 0.1, "pipeline": 0.1}})
    alone, both = (report(each, folder / "results" / "studies") for each in ([study], [small, study]))
    (before,), (after,) = ([each for each in found.answers if each.number == 2] for found in (alone, both))
    assert after.answer == before.answer == "mixed"
    assert after.why[: len(before.why)] == before.why
    added = after.why[len(before.why) :]
    assert added[0] == "small, three layers, which decides nothing: no" and all(line.startswith("small: ") for line in added[1:])
    assert "better than it: rival" in added[1]
    assert [section.study for section in both.sections[:2]] == ["small", "planted"]
    assert "small, three layers, which decides nothing: no" in (write(both, tmp_path)[1]).read_text()


def test_what_stands_beside_an_answer_says_which() -> None:
    with pytest.raises(ConfigError, match=r"study\.beside needs study\.question"):
        planted_study(("ours", "rival"), study={"beside": "three layers"})


def test_every_number_is_the_cells(planted: tuple[Study, Path], written: tuple[Report, Path]) -> None:
    """Means in the downloads, in the tables and in the Markdown are those of the cells; so is the difference."""
    cells = planted[1] / "results" / "studies" / "planted"
    means: dict[tuple[str, str], list[float]] = {}
    for path in cells.glob("*.json"):
        cell = json.loads(path.read_text())
        for row, values in cell["tests"]["d"]["per_query"].items():
            means.setdefault((cell["cell"]["arm"], row), []).append(sum(values.values()) / len(values))
    links = Links()
    links.feed((written[1] / "index.html").read_text())
    scores = {(row["arm"], row["row"]): row for row in csv.DictReader(io.StringIO(links.data["planted-scores-table.csv"]))}
    markdown = (written[1] / "report.md").read_text()
    for key, values in means.items():
        assert float(scores[key]["mean"]) == pytest.approx(sum(values) / len(values), abs=1e-9)
    for arm in ("ours", "rival"):
        told = (f"{sum(means[arm, row]) / 3:.3f} ± {statistics.stdev(means[arm, row]):.3f}" for row in ("dense", "rerank", "pipeline"))
        assert f"| d | d | {arm} | {' | '.join(told)} | 3 |" in markdown
    rivals = json.loads(links.data["planted-rivals-table.json"])
    for row in rivals:
        ours, rival = (sum(means[arm, row["row"]]) / 3 for arm in ("ours", "rival"))
        assert row["difference"] == pytest.approx(ours - rival, abs=1e-9) and row["queries"] == 400
    assert json.loads(links.data["planted-rivals.json"])[0]["difference"] == rivals[0]["difference"]


def test_the_answers_come_first(written: tuple[Report, Path]) -> None:
    found, folder = written
    assert [each.number for each in found.answers] == list(range(1, 10))
    markdown, page = (folder / "report.md").read_text(), (folder / "index.html").read_text()
    assert markdown.index("**Is soft routing the cure?** **Mixed.**") < markdown.index("## The evidence")
    assert page.index("Is soft routing the cure?") < page.index('id="planted"')
    assert markdown.count("there is no study of it here") == 8 and "a &lt; b &amp; c" in page
    assert json.loads((folder / "answers.json").read_text())["facts"]["cells"] == 6


def test_pictures_lie_beside_the_markdown(written: tuple[Report, Path]) -> None:
    folder = written[1]
    named = re.findall(r"\]\((figures/[^)]+)\)", (folder / "report.md").read_text())
    assert named and {path.relative_to(folder).as_posix() for path in (folder / "figures").iterdir()} == set(named)


def test_what_is_written_twice_is_the_same(planted: tuple[Study, Path], written: tuple[Report, Path], tmp_path: Path) -> None:
    study, folder = planted
    write(report([study], folder / "results" / "studies"), tmp_path)
    assert all((tmp_path / name).read_text() == (written[1] / name).read_text() for name in ("index.html", "report.md", "answers.json"))


@pytest.mark.skipif(not (COMMITTED / "answers.json").is_file(), reason="no report is committed")
def test_the_committed_report_is_of_the_committed_cells() -> None:
    """The means that docs/study shows are those of results/studies, and nothing there is from cells that are not here."""
    links = Links()
    links.feed((COMMITTED / "index.html").read_text())
    checked = 0
    for path in sorted((ROOT / "studies").glob("*.toml")):
        study = read(path)
        evidence = Evidence(study, ROOT / "results" / "studies" / study.study.name)
        name = f"{study.study.name}-scores-table.csv"
        own = bool(evidence.cells) and evidence.elsewhere() is None  # another study's section shows the others
        assert (name in links.data) == own, f"run twofold study report again: {name}"
        for row in csv.DictReader(io.StringIO(links.data.get(name, ""))):
            place = next(
                at
                for at in evidence.places
                if (at.data, at.backbone, at.test, at.row) == tuple(row[key] for key in ("data", "backbone", "test", "row"))
            )
            scores = evidence.scores(place, row["arm"])
            assert scores is not None and float(row["mean"]) == pytest.approx(scores.mean(), abs=1e-9)
            checked += 1
    assert checked


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(chromium() is None, reason="no Chromium (Debian: apt-get install chromium)")
def test_a_browser_shows_it(written: tuple[Report, Path]) -> None:
    """With the network forbidden: headings, tables and pictures are there, a mark says its numbers, and a download holds the data."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)  # a loaded machine is slow, and that is no failure of the page
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto((written[1] / "index.html").as_uri())
        assert page.locator(".answer").count() == 9 and page.locator("figure svg").count() >= 4
        assert all(url.startswith("file:") for url in asked) and not errors
        mark = page.locator("#planted-rivals g.mark").first
        mark.hover()
        assert "ours − rival: +0.0" in mark.locator("title").first.text_content()
        with page.expect_download() as download:
            page.locator("a[download='planted-scores-table.csv']").click()
        assert Path(download.value.path()).read_text().startswith("data,backbone,test,row,arm,mean")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
