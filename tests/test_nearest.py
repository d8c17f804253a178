"""The nearest valid name."""

from __future__ import annotations

from twofold.nearest import nearest, unknown


def test_the_most_alike_name_wins() -> None:
    assert nearest("softt", ["uniform", "soft", "topk"]) == "soft"
    assert nearest("MOE-LoRA", ["moe_lora", "hard_lora"]) == "moe_lora"


def test_nothing_alike_gives_none() -> None:
    assert nearest("zzz", ["uniform", "soft"]) is None
    assert nearest("x", []) is None


def test_equal_candidates_give_the_first() -> None:
    assert nearest("ab", ["abx", "aby"]) == "abx"


def test_the_sentence_names_the_value_the_guess_and_all() -> None:
    assert unknown("router", "sotf", ["topk", "soft"]) == "unknown router 'sotf'; did you mean 'soft'? There is: soft, topk"
    assert unknown("router", "zzz", ["topk", "soft"]) == "unknown router 'zzz'; there is: soft, topk"
    assert unknown("router", "zzz", []) == "unknown router 'zzz'; there is: none"
