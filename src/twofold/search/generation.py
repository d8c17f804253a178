"""Answers in sentences, by a language model that is told to use numbered sources: a local decoder, or an endpoint that speaks OpenAI's API.

What comes back is not believed: its citations are read, and its words are looked for in what it cites. An answer whose words do not
stand there counts as none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from bm25s.stopwords import STOPWORDS_EN

from twofold.errors import ConfigError, TwofoldError
from twofold.evaluate.answers import normalised
from twofold.search.answers import Answer, Citation, cite, sentence_around

if TYPE_CHECKING:
    from twofold.search.pipeline import Hit

Message = dict[str, str]
Complete = Callable[[Sequence[Message]], str]
"""A chat → what the language model says next."""

NOTHING = "I don't know."
SYSTEM = (
    "Answer the question from the numbered sources alone, in one or two short sentences. Behind each statement name its source in "
    f"brackets, such as [1]. If the sources do not hold the answer, say only: {NOTHING}"
)
LOCAL = "cache:smollm2"
KEYS = ("TWOFOLD_ENDPOINT_KEY", "OPENAI_API_KEY")
"""Variables of the environment that may hold an endpoint's key."""
CHARACTERS = 1200
"""Of each source, at most: a passage is rarely longer."""
_NUMBERS = re.compile(r"\s*\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_DECLINED = re.compile(
    r"\b(i (do not|don'?t|cannot|can'?t) (know|answer)|(do|does) not (contain|hold|provide|mention|say))\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Generative:
    """Sentences by a language model, with numbered sources."""

    complete: Complete
    name: str
    threshold: float = 0.6
    """Share of the answer's words that must stand in what it cites."""

    def read(self, question: str, hits: Sequence[Hit]) -> Answer:
        """What the model says, with the sentences of its sources that share most words with it. Sources that do not exist are not cited."""
        said = self.complete(messages(question, hits)).strip()
        blank = Answer(question, "", 0.0, self.threshold, self.name, len(hits))
        text = " ".join(_NUMBERS.sub("", said).split())
        if not text or _DECLINED.search(said):
            return blank
        numbers = [number for number in numbers_in(said) if number <= len(hits)]
        wanted = words_of(text) - words_of(question) or words_of(text)
        numbers = numbers or [1 + max(range(len(hits)), key=lambda i: (shared(wanted, hits[i].body), -i))]
        score = round(shared(wanted, " ".join(hits[number - 1].body for number in numbers)), 4)
        if score < self.threshold:
            return replace(blank, score=score)
        citations = tuple(cited(number, hits[number - 1], wanted) for number in numbers)
        return replace(blank, text=said, score=score, citations=citations)


def messages(question: str, hits: Sequence[Hit]) -> list[Message]:
    """The chat: what to do, then the sources by number and the question."""
    sources = "\n\n".join(f"[{i}] {hit.title}\n{hit.text[:CHARACTERS]}".replace(" \n", "\n") for i, hit in enumerate(hits, start=1))
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Sources:\n\n{sources}\n\nQuestion: {question}"}]


def numbers_in(text: str) -> list[int]:
    """The source numbers that a text cites, each once, in their order."""
    found = (int(number) for match in _NUMBERS.finditer(text) for number in re.findall(r"\d+", match[1]))
    return list(dict.fromkeys(number for number in found if number > 0))


def words_of(text: str) -> set[str]:
    """The words that say something."""
    return set(normalised(text).split()) - frozenset(STOPWORDS_EN)


def shared(words: set[str], text: str) -> float:
    """The share of `words` that stand in a text; 0 for no words."""
    return len(words & words_of(text)) / len(words) if words else 0.0


def cited(number: int, hit: Hit, words: set[str]) -> Citation:
    """The sentence of a passage that holds most of `words`."""
    places, at = [], 0
    while at < len(hit.text):
        start = at + len(hit.text[at:]) - len(hit.text[at:].lstrip())
        if start >= len(hit.text):
            break
        place = sentence_around(hit.text, start, start + 1)
        places.append(place)
        at = max(place[1], at + 1)
    return cite(number, hit, max(places, key=lambda place: shared(words, hit.text[slice(*place)]), default=(0, len(hit.text))))


def decoder(name: str = LOCAL, *, tokens: int = 80, device: str = "cpu") -> Complete:
    """A decoder of this machine: a folder, a hub id, or what scripts/get-decoder made; it speaks by its own chat template, always its
    likeliest word. Raises ConfigError where it is not there; the function that is returned, TwofoldError for a chat that is too long.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from twofold.backbone.load import quietly, resolve

    place = resolve(name)
    with quietly():
        tokenizer: Any = AutoTokenizer.from_pretrained(place)
        model: Any = AutoModelForCausalLM.from_pretrained(place)
    model.to(device).eval()
    if not tokenizer.chat_template:
        raise ConfigError(f"decoder {name!r} has no chat template: it was not made to follow instructions")
    room = int(model.config.max_position_embeddings) - tokens

    @torch.inference_mode()
    def complete(chat: Sequence[Message]) -> str:
        ids = tokenizer.apply_chat_template(list(chat), add_generation_prompt=True, return_tensors="pt", return_dict=True).to(device)
        if ids["input_ids"].shape[1] > room:
            raise TwofoldError(f"decoder {name!r} reads {room} tokens, and these sources make {ids['input_ids'].shape[1]}: read fewer")
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        out = model.generate(**ids, max_new_tokens=tokens, do_sample=False, pad_token_id=pad)
        said: str = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return said

    return complete


class _Stay(HTTPRedirectHandler):
    """Follows nowhere: the key is for the address that was given."""

    def redirect_request(self, *_: Any) -> None:  # type: ignore[override, unused-ignore]
        return


def endpoint(url: str, model: str, *, key: str | None = None, tokens: int = 200, timeout: float = 60.0) -> Complete:
    """A server that speaks OpenAI's chat completions; `url` ends before `/chat/completions`, as in `http://localhost:11434/v1`.

    `key`: else the first of `KEYS` that the environment has. Raises ConfigError for an address that is none; the function that is
    returned raises TwofoldError for what goes wrong on the way, and never shows the key.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"endpoint {url!r}: give an address such as http://localhost:11434/v1")
    secret = key or next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
    place = f"{url.rstrip('/').removesuffix('/chat/completions')}/chat/completions"

    def complete(chat: Sequence[Message]) -> str:
        body = {"model": model, "messages": list(chat), "temperature": 0, "max_tokens": tokens}
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {secret}"} if secret else {})}
        try:
            with build_opener(_Stay).open(Request(place, json.dumps(body).encode(), headers), timeout=timeout) as response:
                said = json.load(response)["choices"][0]["message"]["content"]
        except HTTPError as error:
            with error:
                said = error.read(300).decode(errors="replace")
            raise TwofoldError(f"{place} answered {error.code} {error.reason}: {said}") from None
        except (URLError, OSError) as error:
            raise TwofoldError(f"{place} could not be reached: {getattr(error, 'reason', error)}") from None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise TwofoldError(f"{place} gave no chat completion: {type(error).__name__}: {error}") from None
        return str(said or "")

    return complete
