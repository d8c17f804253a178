"""A spec is plain data and comes back from JSON as it was."""

from __future__ import annotations

import json

import pytest

from tests.model.conftest import PLANS
from twofold.core.inject import Expert, LayerPlan
from twofold.model.spec import ModelSpec


@pytest.mark.parametrize("plan", PLANS)
def test_json_and_back(plan: str) -> None:
    spec = ModelSpec("owner/name", {"retrieve": {"temperature": 0.1}}, PLANS[plan], prompts={"query": "find: "}, seed=3)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_depths_come_back_and_are_not_mentioned_where_there_are_none() -> None:
    """A fingerprint is made of this: what was saved before there were depths keeps its own."""
    plan = LayerPlan((Expert("a", 2, depths=(1, 0, 2)), Expert("b", 2)))
    plain = json.loads(json.dumps(ModelSpec("owner/name", {"retrieve": {}}, plan).to_dict()))
    assert [expert.get("depths") for expert in plain["plan"]["experts"]] == [[1, 0, 2], None]
    assert ModelSpec.from_dict(plain).plan == plan


def test_an_unknown_field_is_an_error() -> None:
    plain = ModelSpec("owner/name", {"retrieve": {}}).to_dict()
    with pytest.raises(TypeError, match="colour"):
        ModelSpec.from_dict({**plain, "colour": "red"})
    with pytest.raises(TypeError, match="colour"):
        ModelSpec.from_dict({**plain, "plan": {**plain["plan"], "colour": "red"}})
