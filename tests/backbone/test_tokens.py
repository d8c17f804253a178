"""Templates, cutting and counting: text becomes the ids that the tokenizer itself would give."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny import bert_tokenizer, llama_tokenizer, roberta_tokenizer
from twofold.backbone.packed import Pack
from twofold.backbone.tokens import CHARACTERS_PER_TOKEN, TextTokens, template_of

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
