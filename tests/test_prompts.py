"""Templates: the parts there are, instructions, one's own words, and what is refused."""

from __future__ import annotations

from typing import get_args

import pytest

from twofold.errors import ConfigError
from twofold.prompts import INSTRUCTION, PARTS, TEMPLATES, TemplateName, prompts_of


def test_every_template_has_its_name_and_parts_that_exist() -> None:
    assert tuple(TEMPLATES) == get_args(TemplateName) and all(set(parts) <= set(PARTS) for parts in TEMPLATES.values())
    assert prompts_of("plain") == {}


def test_qwen3_says_what_its_models_were_trained_with() -> None:
    parts = prompts_of("qwen3", "Given a claim, find what supports it")
    assert parts["query"] + "x" == "Instruct: Given a claim, find what supports it\nQuery:x" and "document" not in parts
    body = parts["pair_query"] + "q" + parts["pair_between"] + parts["pair_document"] + "d"
    assert body == "<Instruct>: Given a claim, find what supports it\n<Query>: q\n<Document>: d"
    assert parts["pair_prefix"].startswith("<|im_start|>system\n") and parts["pair_prefix"].endswith("<|im_end|>\n<|im_start|>user\n")
    assert parts["pair_suffix"] == "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert INSTRUCTION in prompts_of("qwen3")["query"]


def test_ones_own_words_take_the_place_of_the_templates() -> None:
    parts = prompts_of("chatml", None, {"query": "search: ", "append": "", "document": "text: "})
    assert (parts["query"], parts["document"]) == ("search: ", "text: ") and "append" not in parts
    assert parts["pair_suffix"] == TEMPLATES["chatml"]["pair_suffix"]
    assert prompts_of("plain", "Find it", {"query": "{instruction}: "}) == {"query": "Find it: "}


def test_an_instruction_that_nothing_says_is_refused() -> None:
    with pytest.raises(ConfigError, match="instruction 'Find it': no part of the template 'plain' says it"):
        prompts_of("plain", "Find it")
