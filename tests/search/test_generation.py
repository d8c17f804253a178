"""Sentences by a language model: numbered sources, citations read and checked; a tiny decoder, and a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.search.test_answers import HITS, TEXTS
from tests.tiny import write_decoder
from twofold.errors import ConfigError, TwofoldError
from twofold.search.answers import answer
from twofold.search.generation import NOTHING, Generative, cited, decoder, endpoint, messages, numbers_in, shared, words_of


def says(text: str) -> Generative:
    return Generative(lambda chat: text, "says")


def test_the_chat_has_the_sources_by_number_and_the_question_last() -> None:
    system, user = messages("who built it?", HITS)
    assert system["role"] == "system"
    assert NOTHING in system["content"]
    assert [user["content"].index(f"[{i}] Title\n{text}") for i, text in enumerate(TEXTS, start=1)] == sorted(
        user["content"].index(text) - len("[1] Title\n") for text in TEXTS
    )
    assert user["content"].endswith("Question: who built it?")


def test_citations_are_read_and_point_to_the_sentence_with_the_words() -> None:
    found = answer("who built the tower?", HITS, says("The tower was built by Ada in Zürich [1]. Bob built a bridge [2]."))
    assert found.supported
    assert found.text.endswith("[2].")
    assert found.score == 1.0
    assert [(one.number, one.document) for one in found.citations] == [(1, "d1"), (2, "d2")]
    assert found.citations[0].quote == "The tower, 🙂 they say, was built in Zürich by Ada."
    assert TEXTS[0][found.citations[0].start : found.citations[0].end] == found.citations[0].quote


def test_an_answer_without_a_citation_gets_the_source_of_its_words() -> None:
    found = answer("who?", HITS, says("Bob built a bridge."))
    assert [(one.number, one.quote) for one in found.citations] == [(2, "Bob built a bridge.")]


def test_a_source_that_is_not_there_is_not_cited() -> None:
    found = answer("who?", HITS, says("Bob built a bridge [2][7]."))
    assert [one.number for one in found.citations] == [2]


@pytest.mark.parametrize("said", ["", "  ", NOTHING, "I do not know.", "The sources do not mention it [1].", "[1]"])
def test_what_declines_is_no_answer(said: str) -> None:
    found = answer("who?", HITS, says(said))
    assert not found.supported
    assert found.citations == ()


@pytest.mark.parametrize("said", ["It was Napoleon in Moscow, 1812 [1].", "Ada went to Paris, Rome, London [1]."])
def test_what_its_sources_do_not_say_is_no_answer(said: str) -> None:
    found = answer("who built it?", HITS, says(said))
    assert not found.supported
    assert found.score is not None
    assert found.score < found.threshold


def test_numbers_words_and_shares() -> None:
    assert numbers_in("a [2], b [1, 3] c [2; 10] [0] [x] 7") == [2, 1, 3, 10]
    assert words_of("The Tower, of Ada!") == {"tower", "ada"}
    assert shared({"tower", "ada"}, "the tower") == 0.5
    assert shared(set(), "x") == 0.0


@pytest.mark.parametrize("text", ["", "   ", "one word", " a. b.  c. "])
def test_a_sentence_is_cited_whatever_the_passage(text: str) -> None:
    one = cited(1, HITS[0].__class__(**{**HITS[0].__dict__, "text": text}), {"b"})
    assert text[one.start : one.end] == one.quote


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    write_decoder(folder, "llama")
    return folder


class Server(BaseHTTPRequestHandler):
    """Answers like an endpoint; what it was asked is kept."""

    asked: list[tuple[str, dict[str, str], Any]] = []  # noqa: RUF012
    reply: tuple[int, str] = (200, "")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, dict(self.headers), body))
        status, text = self.reply
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("TWOFOLD_ENDPOINT_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    Server.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Server) as here:
        thread = threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{here.server_address[1]}/v1"
        here.shutdown()
        thread.join()


def completion(text: Any) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions"])
def test_an_endpoint_is_asked_as_openai_says(server: str, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_ENDPOINT_KEY", "secret")
    Server.reply = (200, completion("Bob built a bridge [2]."))
    found = answer("who?", HITS, Generative(endpoint(server + ending, "some-model"), "some-model"))
    assert (found.text, found.reader) == ("Bob built a bridge [2].", "some-model")
    path, headers, body = Server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"]) == ("some-model", 0)
    assert body["messages"] == messages("who?", HITS)


def test_without_a_key_none_is_sent(server: str) -> None:
    Server.reply = (200, completion(None))
    assert not answer("who?", HITS, Generative(endpoint(server, "m"), "m")).supported
    assert "Authorization" not in Server.asked[0][1]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((401, '{"error": "bad key"}'), r"answered 401 .*bad key"),
        ((307, ""), r"answered 307"),
        ((200, "no json"), r"gave no chat completion: JSONDecodeError"),
        ((200, '{"choices": []}'), r"gave no chat completion: IndexError"),
    ],
)
def test_what_goes_wrong_is_one_line_without_the_key(server: str, reply: tuple[int, str], said: str) -> None:
    Server.reply = reply
    with pytest.raises(TwofoldError, match=said) as caught:
        endpoint(server, "m", key="secret")(messages("who?", HITS))
    assert "secret" not in str(caught.value)


def test_an_address_that_leads_nowhere_is_said() -> None:
    with pytest.raises(TwofoldError, match="could not be reached"):
        endpoint("http://127.0.0.1:9/v1", "m", timeout=2)([])
    for wrong in ("localhost:1/v1", "file:///etc/passwd", ""):
        with pytest.raises(ConfigError, match="give an address such as"):
            endpoint(wrong, "m")


def test_a_decoder_speaks_by_its_chat_template_always_the_same(chatty: Path) -> None:
    complete = decoder(str(chatty), tokens=4)
    chat = [{"role": "user", "content": "bc df"}]
    assert complete(chat) == complete(chat)
    assert isinstance(complete(chat), str)
    with pytest.raises(TwofoldError, match="reads 508 tokens, and these sources make"):
        complete([{"role": "user", "content": "bc " * 200}])


def test_a_decoder_without_a_chat_template_is_refused(chatty: Path, tmp_path: Path) -> None:
    for file in chatty.iterdir():
        if file.suffix != ".jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="has no chat template"):
        decoder(str(tmp_path))


def test_a_decoder_that_was_not_made_yet_says_how(cache_dir: Path) -> None:
    with pytest.raises(ConfigError, match="run scripts/get-decoder"):
        decoder("cache:smollm2")


def test_sequences_of_any_kind_will_do() -> None:
    hits: Sequence[Any] = tuple(HITS)
    assert answer("who?", hits, says("Bob built a bridge [2].")).supported
