"""A spec is plain data and comes back from JSON as it was."""

from __future__ import annotations

import json

import pytest

from tests.model.conftest import PLANS
from twofold.model.spec import ModelSpec


@pytest.mark.parametrize("plan", PLANS)
def test_json_and_back(plan: str) -> None:
    spec = ModelSpec("owner/name", {"retrieve": {"temperature": 0.1}}, PLANS[plan], prompts={"query": "find: "}, seed=3)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_an_unknown_field_is_an_error() -> None:
    plain = ModelSpec("owner/name", {"retrieve": {}}).to_dict()
    with pytest.raises(TypeError, match="colour"):
        ModelSpec.from_dict({**plain, "colour": "red"})
    with pytest.raises(TypeError, match="colour"):
        ModelSpec.from_dict({**plain, "plan": {**plain["plan"], "colour": "red"}})
