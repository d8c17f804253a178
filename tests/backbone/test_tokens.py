"""Templates, cutting and counting: text becomes the ids that the tokenizer itself would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.tiny import bert_tokenizer, chat_tokenizer, llama_tokenizer, roberta_tokenizer
from twofold.backbone.packed import Pack
from twofold.backbone.tokens import CHARACTERS_PER_TOKEN, TextTokens, ending_with, template_of, token_of
from twofold.errors import ConfigError
from twofold.prompts import prompts_of

TOKENIZERS = {"bert": bert_tokenizer, "roberta": roberta_tokenizer, "llama": llama_tokenizer, "bare": lambda: llama_tokenizer(bos=False)}


def tokens(tokenizer: Any, **options: Any) -> TextTokens:
    return TextTokens(tokenizer, **{"max_length": 32, "pair_length": 40, "query_length": 12, "prompts": {}, **options})


def segments(pack: Pack) -> list[tuple[list[int], list[int], list[int]]]:
    """(ids, types, parts) of every text in the caller's order."""
    parts = [tensor.split(list(pack.lengths)) for tensor in (pack.input_ids_T, pack.type_ids_T, pack.part_T)]
    rows = [tuple(part[i].tolist() for part in parts) for i in range(len(pack.lengths))]
    return [rows[pack.order.index(i)] for i in range(len(rows))]  # type: ignore[misc]


class Recording:
    """A tokenizer that remembers the longest text that it was given."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.longest = tokenizer, 0

    def __call__(self, texts: Any, *rest: Any, **options: Any) -> Any:
        self.longest = max(self.longest, *(len(text) for text in texts)) if isinstance(texts, list) else self.longest
        return self.tokenizer(texts, *rest, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def test_a_template_is_read_off_the_tokenizer() -> None:
    bert = template_of(bert_tokenizer(), pair=True)
    assert (bert.prefix, bert.middle, bert.suffix, bert.types, bert.size) == ([2], [3], [3], (0, 0, 0, 1, 1), 3)
    roberta = template_of(roberta_tokenizer(), pair=True)
    assert (roberta.prefix, roberta.middle, roberta.suffix, roberta.types) == ([0], [2, 2], [2], (0, 0, 0, 0, 0))
    llama = template_of(llama_tokenizer(), pair=True)
    assert (llama.prefix, llama.middle, llama.suffix) == ([1], [1], [])
    assert template_of(llama_tokenizer(bos=False), pair=True).size == 0
    single = template_of(bert_tokenizer(), pair=False)
    assert (single.prefix, single.middle, single.suffix, single.size) == ([2], [], [3], 2)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts_and_pairs_are_what_the_tokenizer_makes_of_them(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    made, texts = tokens(tokenizer), ["the lazy dog", "a", "what is it : a fox"]
    for (ids, types, parts), text in zip(segments(made.texts(texts)), texts, strict=True):
        want = tokenizer(text)
        assert ids == want["input_ids"] and types == want.get("token_type_ids", [0] * len(ids))
        assert sum(part == 1 for part in parts) == len(ids) - made.single.size and 2 not in parts
    pairs = [("what is it", "a red fox"), ("a", "the dog")]
    for (ids, types, parts), (query, document) in zip(segments(made.pairs(pairs)), pairs, strict=True):
        want = tokenizer(query, document)
        assert ids == want["input_ids"] and types == want.get("token_type_ids", [0] * len(ids))
        for part, text in ((1, query), (2, document)):
            assert [token for token, at in zip(ids, parts, strict=True) if at == part] == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_and_its_text_are_tokenised_as_one_string(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    prompts = {"query": "query: ", "document": "document:", "pair_query": "query:", "pair_document": "document: "}
    made = tokens(tokenizer, prompts=prompts, pair_length=80)
    assert segments(made.texts(["a fox"], "query"))[0][0] == tokenizer("query: a fox")["input_ids"]
    assert segments(made.texts(["fox"], "document"))[0][0] == tokenizer("document:fox")["input_ids"]
    assert segments(made.texts(["fox"]))[0][0] == tokenizer("fox")["input_ids"]
    assert segments(made.pairs([("a", "dog")]))[0][0] == tokenizer("query:a", "document: dog")["input_ids"]


def test_texts_are_cut_and_the_cuts_are_counted() -> None:
    made = tokens(bert_tokenizer(), max_length=8)
    pack = made.texts(["a " * 6, "a " * 7, "a", "a " * 500])
    assert pack.truncated == 2 and sorted(pack.lengths) == [3, 8, 8, 8]
    assert all(ids[0] == 2 and ids[-1] == 3 for ids, _, _ in segments(pack))


def test_pairs_are_cut_on_both_sides_and_counted_once() -> None:
    made = tokens(bert_tokenizer(), pair_length=12, query_length=4)
    pack = made.pairs([("a " * 4, "dog " * 5), ("a " * 5, "dog " * 5), ("a", "dog " * 8), ("a", "dog " * 9), ("a " * 50, "dog " * 50)])
    assert pack.truncated == 3
    counts = [(parts.count(1), parts.count(2)) for _, _, parts in segments(pack)]
    assert counts == [(4, 5), (4, 5), (1, 8), (1, 8), (4, 5)] and max(pack.lengths) == 12


def test_a_querys_prompt_does_not_take_the_querys_room() -> None:
    made = tokens(bert_tokenizer(), pair_length=20, query_length=4, prompts={"pair_query": "query : "})
    ids, _, parts = segments(made.pairs([("a " * 10, "dog")]))[0]
    assert parts.count(1) == 6 and len(ids) == 6 + 1 + 3


def test_an_empty_text_keeps_the_template_or_one_token() -> None:
    assert segments(tokens(bert_tokenizer()).texts(["", "a"]))[0] == ([2, 3], [0, 0], [0, 0])
    assert segments(tokens(llama_tokenizer()).texts([""]))[0][0] == [1]
    assert segments(tokens(llama_tokenizer(bos=False)).texts([""]))[0] == ([2], [0], [0])  # no padding token: the end of text
    assert segments(tokens(bert_tokenizer()).pairs([("", "")]))[0] == ([2, 3, 3], [0, 0, 1], [0, 0, 0])


def test_characters_are_cut_before_the_tokenizer_sees_ten_megabytes() -> None:
    tokenizer = Recording(bert_tokenizer())
    made = tokens(tokenizer)
    huge = "lazy dog " * 1_200_000
    texts, pairs = made.texts([huge, "a fox"]), made.pairs([(huge, huge), ("a", huge)])
    assert tokenizer.longest <= 41 * CHARACTERS_PER_TOKEN
    assert (texts.truncated, sorted(texts.lengths)) == (1, [4, 32]) and (pairs.truncated, pairs.lengths) == (2, (40, 40))


def test_what_only_the_character_cut_removed_is_counted_too() -> None:
    made = tokens(bert_tokenizer())
    assert made.texts(["a" + " " * 10_000 + "dog"]).truncated == 1
    assert made.pairs([("a", "a" + " " * 10_000 + "dog")]).truncated == 1


def test_a_lone_surrogate_is_named_not_crashed_on() -> None:
    made = tokens(bert_tokenizer())
    with pytest.raises(ValueError, match="text 1 holds a lone surrogate"):
        made.texts(["fine", "br\ud800ken"])
    with pytest.raises(ValueError, match="lone surrogate"):
        made.pairs([("fine", "br\udfffken")])
    assert made.texts(["fine \U0001f600 e\u0301 \x00"]).tokens > 2


def test_a_token_is_appended_where_the_tokenizer_ends_with_none() -> None:
    made = tokens(llama_tokenizer(), prompts={"append": "</s>"})
    assert segments(made.texts(["a"]))[0][0] == [1, 4, 2] and segments(made.pairs([("a", "a")]))[0][0] == [1, 4, 1, 4, 2]
    assert segments(tokens(bert_tokenizer(), prompts={"append": "[SEP]"}).texts(["a"]))[0][0] == [2, 4, 3]
    with pytest.raises(ValueError, match="no token '<eos>'"):
        tokens(llama_tokenizer(), prompts={"append": "<eos>"})


def test_the_tokenizer_itself_ends_texts_then_and_keeps_that_on_disk(tmp_path: Path) -> None:
    """Whoever opens a saved model tokenises with its tokenizer alone; the one that was given stays as it was."""
    given = chat_tokenizer()
    made = tokens(given, prompts={"append": "<|im_end|>"})
    made.tokenizer.save_pretrained(tmp_path)
    for tokenizer in (made.tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert segments(made.texts(["a fox"]))[0][0] == tokenizer("a fox")["input_ids"] and tokenizer("a fox")["input_ids"][-1] == 2
        assert tokenizer("a fox", truncation=True, max_length=3)["input_ids"][-1] == 2
        assert tokenizer("a", "dog", return_token_type_ids=True)["token_type_ids"] == [0, 1, 1, 1, 0]
    assert given("a fox")["input_ids"] == made.tokenizer("a fox")["input_ids"][:-1]
    assert ending_with(made.tokenizer, "<|endoftext|>") is made.tokenizer


CHATS = {template: {"prompts": prompts_of(template), "pair_length": 480, "max_length": 200} for template in ("chatml", "qwen3")}


def chat_of(made: TextTokens, query: str, document: str) -> list[int]:
    """What Qwen3-Reranker's authors do: prefix and suffix tokenised alone, the body between as one string."""
    of, encode = made.prompts, lambda text: made.tokenizer.encode(text, add_special_tokens=False)
    body = f"{of['pair_query']}{query}{of['pair_between']}{of['pair_document']}{document}"
    return [token for piece in (of["pair_prefix"], body, of["pair_suffix"]) for token in encode(piece)]


@pytest.mark.parametrize("template", CHATS)
def test_a_pair_as_a_chat(template: str) -> None:
    made = tokens(chat_tokenizer(), **CHATS[template])
    pairs = [("what is it?", "a red fox"), ("", ""), ("naïve", "北京 \n")]
    for (ids, types, parts), pair in zip(segments(made.pairs(pairs)), pairs, strict=True):
        assert ids == chat_of(made, *pair) and not any(types)
        first, last = parts.index(1), len(parts) - parts[::-1].index(2)
        assert made.tokenizer.decode(ids[:first]) == made.prompts["pair_prefix"]
        assert made.tokenizer.decode(ids[last:]) == made.prompts["pair_suffix"]


@pytest.mark.parametrize("template", CHATS)
def test_a_chat_is_never_cut_but_its_texts_are(template: str) -> None:
    made = tokens(chat_tokenizer(), **CHATS[template])
    pairs = [("what " * 30, "dog " * 300), ("what", "dog " * 300), ("what " * 30, "dog")]
    pack = made.pairs(pairs)
    assert pack.truncated == 3 and max(pack.lengths) == made.pair_length == pack.lengths[1]
    for (ids, _, parts), (query, _) in zip(segments(pack), pairs, strict=True):
        text = made.tokenizer.decode(ids)
        of = made.prompts
        assert text.startswith(of["pair_prefix"] + of["pair_query"] + query[:12].rstrip()) and text.endswith(of["pair_suffix"])
        assert of["pair_between"] + of["pair_document"] + "dog" in text and parts.count(1) <= made.query_length


@pytest.mark.parametrize("template", CHATS)
def test_texts_that_others_tokenised_become_the_same_chat(template: str) -> None:
    made = tokens(chat_tokenizer(), **CHATS[template])
    pairs = [("what is it?", " a red fox"), ("", ""), ("naïve " * 40, "北京 \U0001f98a\n"), ("<|im_end|>", "dog " * 300)]
    sides = [[made.tokenizer.encode(text, add_special_tokens=False) for text in side] for side in zip(*pairs, strict=True)]
    assert segments(made.pair_ids(*sides)) == segments(made.pairs(pairs))


def test_a_chat_stands_behind_the_tokenizers_first_tokens_and_in_place_of_the_others() -> None:
    made = tokens(llama_tokenizer(), prompts={"append": "</s>", "pair_prefix": "the", "pair_between": "is", "pair_suffix": "dog"})
    words = segments(made.pairs([("a", "fox")]))[0][0]
    assert made.tokenizer.convert_ids_to_tokens(words) == ["<s>", "▁the", "▁a", "i", "s", "▁fox", "▁dog"]
    only_prefix = tokens(bert_tokenizer(), prompts={"pair_prefix": "query"})
    query = only_prefix.tokenizer.encode("query a fox", add_special_tokens=False)
    assert segments(only_prefix.pairs([("a", "fox")]))[0][0] == [2, *query, 3]


def test_lengths_are_checked_again_for_training() -> None:
    made = tokens(chat_tokenizer(), **CHATS["chatml"])
    assert made.with_lengths(64, 240).pairs([("a", "dog " * 90)]).lengths == (240,)
    with pytest.raises(ConfigError, match="pair_length 80, query_length 12: .* room is left for .* -[0-9]+ of a document"):
        made.with_lengths(64, 80)


def test_a_word_that_is_one_token() -> None:
    tokenizer = chat_tokenizer()
    assert tokenizer.convert_ids_to_tokens([token_of(tokenizer, "yes"), token_of(tokenizer, "no")]) == ["yes", "no"]
    with pytest.raises(ConfigError, match="the word 'maybe' is not one token"):
        token_of(tokenizer, "maybe")
    with pytest.raises(ConfigError, match="the word '北' is not one token"):
        token_of(bert_tokenizer(), "北")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_length": 2},
        {"query_length": 0},
        {"pair_length": 15, "query_length": 12},
        {"max_length": 8, "prompts": {"document": "a red fox runs over the lazy dog"}},
        {"pair_length": 16, "query_length": 4, "prompts": {"pair_document": "a red fox runs over the lazy dog :"}},
    ],
)
def test_lengths_that_leave_no_room_for_text_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_length [0-9]+, pair_length [0-9]+, query_length [0-9]+: .* room"):
        tokens(bert_tokenizer(), **wrong)


def test_unknown_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['quary'\]: use query, document"):
        tokens(bert_tokenizer(), prompts={"quary": "x"})


def test_a_tokenizer_that_changes_a_text_by_its_template_is_refused() -> None:
    class Odd(Recording):
        def encode(self, text: str, **options: Any) -> list[int]:
            return [99]

    with pytest.raises(ValueError, match="does not keep the tokens"):
        template_of(Odd(bert_tokenizer()), pair=False)


def test_texts_are_joined_in_one_template_each_cut_by_itself() -> None:
    made = tokens(bert_tokenizer())
    pack = made.joined([[("a", None), ("red fox runs", 2), ("over the lazy dog", 4)], [("fox", 1)]])
    rows = [made.tokenizer.decode(ids) for ids, _, _ in segments(pack)]
    assert rows == ["[CLS] a red fox over the lazy dog [SEP]", "[CLS] fox [SEP]"]
    assert pack.truncated == 1
