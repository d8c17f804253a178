"""Texts and pairs in one pass give what each gives alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.model.conftest import CHAT, PLANS, MakeModel
from tests.model.test_unified import PAIRS, TEXTS
from twofold.model import mixed
from twofold.model.system import System
from twofold.model.unified import UnifiedModel

HEADS = ("maxsim", "cosine", "linear", "both")


def compare(model: UnifiedModel, tolerance: float = 1e-5) -> None:
    """Queries, plain texts and pairs, interleaved in one pass, against `encode` and `score`."""
    system = System.of(model)
    plain, queries, pairs = mixed.texts(system, TEXTS).rows, mixed.texts(system, TEXTS, "query").rows, mixed.pairs(system, PAIRS).rows
    order = [row for rows in zip(plain, queries, [*pairs, pairs[0]], strict=True) for row in rows]
    outputs = mixed.run(order)
    assert abs(np.stack(outputs[0::3]) - model.encode(TEXTS)).max() < tolerance
    assert abs(np.stack(outputs[1::3]) - model.encode_queries(TEXTS)).max() < tolerance
    wanted = model.score([*PAIRS, PAIRS[0]])
    assert abs(np.array(outputs[2::3]) - wanted).max() < tolerance * max(1, abs(wanted).max())


@pytest.mark.parametrize("plan", PLANS)
def test_a_mixed_pass_equals_separate_ones_for_every_plan(plan: str, make_model: MakeModel) -> None:
    compare(make_model(plan, prompts={"query": "query : "}, tasks={"retrieve": {"sides": plan == "sides"}, "rerank": {"head": "both"}}))


@pytest.mark.parametrize("head", HEADS)
def test_and_for_every_head(head: str, make_model: MakeModel) -> None:
    compare(make_model("soft", tasks={"retrieve": {}, "rerank": {"head": head}}))


def test_and_padded(make_model: MakeModel) -> None:
    compare(make_model("soft", attention="padded"))


def test_and_for_a_decoder_that_answers_yes_or_no(make_model: MakeModel) -> None:
    compare(make_model("by_task", "chat_qwen3", **CHAT), 1e-4)


def test_and_for_domains_of_queries(make_model: MakeModel) -> None:
    plan = PLANS["by_task"]
    sees = {**plan.sees, "retrieve/one": ("embedding",), "retrieve/two": ("shared",), "retrieve/document": ("embedding",)}
    spec: dict[str, Any] = {"tasks": {"retrieve": {"domains": ["one", "two"]}, "rerank": {}}}
    PLANS["domains"] = replace(plan, sees=sees)
    try:
        model = make_model("domains", **spec)
    finally:
        del PLANS["domains"]
    domains: Any = model.tasks["retrieve"].domains
    domains.learn(__import__("torch").from_numpy(model.encode(["the red fox", "what is it"])), ["one", "two"])
    compare(model)


def test_what_attends_in_another_direction_has_a_lane_of_its_own(make_model: MakeModel) -> None:
    system = System.of(make_model("none", "llama", both_ways=["retrieve"]))
    text, pair = mixed.texts(system, ["a fox"]).rows[0], mixed.pairs(system, [("a", "fox")]).rows[0]
    assert text.lane != pair.lane
    other = System.of(make_model("none"))
    assert mixed.texts(other, ["a fox"]).rows[0].lane == mixed.pairs(other, [("a", "fox")]).rows[0].lane != text.lane


def test_padded_texts_share_a_pass_with_their_own_task_only(make_model: MakeModel) -> None:
    padded = System.of(make_model("none", attention="padded"))
    text, pair = mixed.texts(padded, ["a fox"]).rows[0], mixed.pairs(padded, [("a", "fox")]).rows[0]
    assert text.lane != pair.lane and text.lane == mixed.texts(padded, ["a fox and more"]).rows[0].lane


def test_token_ids_stand_for_the_text_that_they_spell(make_model: MakeModel) -> None:
    model = make_model(prompts={"query": "query : "})
    system = System.of(model)
    ids = [model.tokens.tokenizer.encode(text, add_special_tokens=False) for text in TEXTS if text]
    for prompt in (None, "query"):
        made = mixed.texts(system, ids, prompt)
        assert abs(np.stack(mixed.run(made.rows)) - model.encode([text for text in TEXTS if text], prompt=prompt)).max() < 1e-5
        assert made.truncated == 1
    with pytest.raises(ValueError, match="text 1 holds the token 999999: this model's tokenizer has 0 to"):
        mixed.texts(system, [[3], [999999]])


def test_what_the_model_does_not_do_is_refused(make_model: MakeModel) -> None:
    system = System.of(make_model(tasks={"retrieve": {}}))
    with pytest.raises(ValueError, match="not made for 'rerank'"):
        mixed.pairs(system, [("a", "fox")])
