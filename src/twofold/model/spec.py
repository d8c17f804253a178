"""`ModelSpec`: all that is needed to build a model again, as plain data; it is what a saved folder's config.json carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from twofold.core.inject import Expert, LayerPlan


@dataclass(frozen=True)
class ModelSpec:
    """Backbone, text settings, mixture and tasks. `backbone` is a name as `backbone.load.resolve` takes it."""

    backbone: str
    tasks: Mapping[str, Mapping[str, Any]]
    """Task → options of its `build`."""
    plan: LayerPlan = field(default_factory=LayerPlan)
    pooling: str = "auto"
    attention: str = "auto"
    precision: str = "fp32"
    max_length: int = 256
    pair_length: int = 384
    query_length: int = 64
    prompts: Mapping[str, str] = field(default_factory=dict)
    both_ways: tuple[str, ...] = ()
    """The tasks in whose passes a causal backbone attends both ways."""
    seed: int = 0
    """What the experts, routers and heads start from."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON. An expert without `depths` does not mention them: what was saved before them keeps its fingerprint."""
        plain = asdict(self)
        for expert in plain["plan"]["experts"]:
            if not expert["depths"]:
                del expert["depths"]
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """The reverse of `to_dict`. Raises TypeError for a field that does not exist."""
        plan = dict(data["plan"])
        plan["experts"] = tuple(Expert(**{**expert, "depths": tuple(expert.get("depths", ()))}) for expert in plan["experts"])
        plan["sees"] = {task: tuple(experts) for task, experts in plan["sees"].items()}
        return cls(**{**data, "plan": LayerPlan(**plan), "both_ways": tuple(data.get("both_ways", ()))})
