"""Planted cells get the answers that the rules promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.study.planted import plant, planted_study
from twofold.study.answers import QUESTIONS, answer, cost
from twofold.study.blocks import Answer
from twofold.study.evidence import Evidence
from twofold.study.verdict import MIXED, NO, OPEN, YES

NOTHING = {"dense": 0.0, "rerank": 0.0}
GAIN = {"dense": 0.06, "rerank": 0.06}


def asked(tmp_path: Path, gains: dict[str, dict[str, float]], leave_out: tuple[str, ...] = (), **changes: Any) -> Answer:
    study = planted_study(tuple(gains), **changes)
    found = answer(Evidence(study, plant(study, tmp_path / "planted", gains, leave_out)), {}, tmp_path)
    assert found is not None
    return found


SPECIALISTS = {"study": {"question": 1}, "compare": [{"what": "interference", "a": {"dense": "sd", "rerank": "sr"}, "b": "shared"}]}


@pytest.mark.parametrize(
    ("dense", "rerank", "wanted"),
    [(0.06, 0.06, YES), (0.0, 0.0, NO), (0.06, 0.0, MIXED), (-0.06, 0.0, NO)],
    ids=["yes", "tie", "mixed", "other"],
)
def test_interference(tmp_path: Path, dense: float, rerank: float, wanted: str) -> None:
    found = asked(tmp_path, {"sd": {"dense": dense}, "sr": {"rerank": rerank}, "shared": NOTHING}, **SPECIALISTS)
    assert found.answer == wanted and len(found.why) == 3
    assert found.why[0].startswith("nDCG@10") and "3 seeds" in found.why[0] and "the section planted" in found.why[0]
    if wanted == YES:
        line = found.why[1]
        assert "sd 0." in line and "shared 0." in line and "400 queries, higher with 3 of 3 seeds" in line
        assert " %" in line and "p < .001" in line


CURE = {"study": {"question": 2, "tested": "moe", "rivals": ["shared", "frozen_random"]}}


def test_cure(tmp_path: Path) -> None:
    assert asked(tmp_path / "yes", {"moe": GAIN, "shared": NOTHING, "frozen_random": NOTHING}, **CURE).answer == YES
    tied = asked(tmp_path / "no", {"moe": GAIN, "shared": NOTHING, "frozen_random": GAIN}, **CURE)
    assert tied.answer == NO and all("a random router does as well" in line for line in tied.why[1:])


def test_no_answer_before_all_cells_are_there(tmp_path: Path) -> None:
    gains = {"moe": GAIN, "shared": NOTHING, "frozen_random": NOTHING}
    found = asked(tmp_path, gains, ("d/b/moe/seed2",), study={**CURE["study"], "waits": "the machine was busy"})
    assert found.answer == OPEN and found.why[0] == "8 of 9 cells were run: the machine was busy" and "yes; beats all" in found.why[2]
    never = asked(tmp_path / "never", {}, arms={"moe": {"what": "", "method": {"name": "zero_shot"}}}, study={"question": 3})
    assert never.answer == OPEN and never.why == ["0 of 3 cells were run"]


@pytest.mark.parametrize(("other", "wanted"), [(GAIN, YES), (NOTHING, NO)])
def test_scale_asks_whether_the_answer_stays(tmp_path: Path, other: dict[str, float], wanted: str) -> None:
    """Two backbones: in the first the router wins; in the second it wins, too, or ties."""
    changes = {"study": {"question": 8, "tested": "moe", "rivals": ["shared"]}, "backbones": {"b": {}, "large": {}}}
    study = planted_study(("moe", "shared"), **changes)
    folder = tmp_path / "planted"
    for backbone, gain in (("b", GAIN), ("large", other)):
        away = tuple(
            f"d/{each}/{arm}/seed{seed}" for each in ("b", "large") if each != backbone for arm in ("moe", "shared") for seed in range(3)
        )
        plant(study, folder, {"moe": gain, "shared": NOTHING}, away)
    found = answer(Evidence(study, folder), {}, tmp_path)
    assert found is not None and found.answer == wanted and {"b: yes", f"large: {wanted}"} <= set(found.why)


@pytest.mark.parametrize(
    ("new", "old", "wanted"),
    [(0.06, 0.0, YES), (0.0, 0.06, YES), (-0.06, 0.06, NO), (0.0, 0.0, NO)],
    ids=["gains", "keeps", "loses", "ties"],
)
def test_a_new_domain(tmp_path: Path, new: float, old: float, wanted: str) -> None:
    compare = [
        {"what": "new", "a": "added", "b": "retrained", "tests": ["new"]},
        {"what": "old", "a": "added", "b": "retrained", "tests": ["old"]},
    ]
    changes = {"study": {"question": 9}, "data": {"d": {"train": ["new"], "test": ["new", "old"]}}, "compare": compare}
    study = planted_study(("added", "retrained"), **changes)
    folder = plant(study, tmp_path / "planted", {"added": NOTHING, "retrained": NOTHING})
    for name, gain in (("new", new), ("old", old)):
        other = plant(study, tmp_path / name, {"added": {"dense": gain, "rerank": gain}, "retrained": NOTHING})
        for path in other.glob("*added*.json"):
            content = json.loads((folder / path.name).read_text())
            content["tests"][name] = json.loads(path.read_text())["tests"][name]
            (folder / path.name).write_text(json.dumps(content))
    found = answer(Evidence(study, folder), {}, tmp_path)
    assert found is not None and found.answer == wanted


def knockout(own: float, other: float, seed: int = 0, base: float = 0.4) -> dict[str, Any]:
    rows = []
    for task, experts in (("retrieve", ("embedding", "reranking")), ("rerank", ("reranking", "embedding"))):
        rows += [
            {"task": task, "expert": expert, "layers": "all", "score": score} for expert, score in zip(experts, (own, other), strict=True)
        ]
    facts = {"retrieve_whole": 0.7, "rerank_whole": 0.7, "retrieve_base": base, "rerank_base": base, "queries": 40}
    cell = {"data": "d", "backbone": "b", "arm": "moe", "seed": seed}
    return {"cell": cell, "report": {"facts": facts, "tables": {"knockouts": rows}, "notes": []}}


@pytest.mark.parametrize(("second", "wanted"), [((0.5, 0.6), YES), ((0.6, 0.5), OPEN)])
def test_experts(tmp_path: Path, second: tuple[float, float], wanted: str) -> None:
    study = planted_study(("moe",), study={"question": 4})
    evidence = Evidence(study, plant(study, tmp_path / "planted", {"moe": GAIN}))
    found = answer(evidence, {"knockout": [knockout(0.5, 0.6), knockout(*second, seed=1)]}, tmp_path)
    assert found is not None and found.answer == wanted and "without its own expert −0.200" in found.why[2]
    assert "exactly as much in 0; 40 queries" in found.why[1] and "gain nothing" not in found.why[2]
    idle = answer(evidence, {"knockout": [knockout(0.6, 0.6, base=0.8)]}, tmp_path)
    assert idle is not None and idle.answer == NO and "in 0 of 2 places, exactly as much in 2" in idle.why[1]
    assert "gain nothing over the backbone" in idle.why[2]
    none = answer(evidence, {}, tmp_path)
    assert none is not None and none.answer == OPEN and none.why[1:] == ["no knock-out was run"]


def test_nearly_equal_weights_are_told(tmp_path: Path) -> None:
    study = planted_study(("moe", "mean"), study={"question": 3}, compare=[{"what": "a", "a": "moe", "b": "mean"}])
    evidence = Evidence(study, plant(study, tmp_path / "planted", {"moe": GAIN, "mean": NOTHING}))
    for effective, told in ((2.9, True), (1.5, False)):
        probed = {"routing": [{"report": {"facts": {"effective_experts": effective, "experts": 3}}}]}
        found = answer(evidence, probed, tmp_path)
        assert found is not None and any("weights are nearly equal" in line for line in found.why) == told


def test_arms_of_different_rates_are_told(tmp_path: Path) -> None:
    study = planted_study(
        ("moe", "one"), study={"question": 1}, sweep={"lr": [1e-3, 3e-3, 1e-2]}, compare=[{"what": "a", "a": "moe", "b": "one"}]
    )
    folder = plant(study, tmp_path / "planted", {"moe": GAIN, "one": NOTHING})
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "lr": 1e-3 if content["cell"]["arm"] == "one" else 3e-3}))
    found = answer(Evidence(study, folder), {}, tmp_path)
    assert found is not None
    assert found.why[-1] == (
        "d, b: best learning rates of the sweep: 0.001 (the edge): one; 0.003: moe; arms of different rates differ by that too"
    )


def test_cost_is_the_benchmarks(tmp_path: Path) -> None:
    assert cost(tmp_path)[0] == OPEN
    found, why = cost(ROOT / "results")
    ratios = json.loads((ROOT / "results" / "bench" / "mixture.json").read_text())["ratios"]
    lows = [each["interval"][0] for name, each in ratios.items() if name.startswith("mixture / one_lora,")]
    assert len(lows) == 4 and (found == YES) == (min(lows) > 1.05) and len(why) > 3


def test_further_evidence_answers_nothing(tmp_path: Path) -> None:
    study = planted_study(("moe",))
    assert answer(Evidence(study, tmp_path), {}, tmp_path) is None and len(QUESTIONS) == 9
