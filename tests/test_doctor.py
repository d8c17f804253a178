"""What `twofold doctor` says, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_trial import write_backbone
from twofold import doctor


def test_report_names_versions_and_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OPTIONAL", {"no_such_module_here": ("a test", "pip install nothing")})
    report = doctor.examine()
    assert report["missing"]["no_such_module_here"]["get it"] == "pip install nothing"
    assert report["environment"]["versions"]["torch"] and "packing" not in report


def test_packing_is_proved_for_a_backbone(tmp_path: Path) -> None:
    found = doctor.examine(str(write_backbone(tmp_path / "backbone")))["packing"]
    assert found["packed"] and found["family"] == "bert" and found["pooling"] == "mean"


@pytest.mark.parametrize(
    ("flags", "gpu", "said"), [(["avx512_bf16"], False, "natively"), (["avx2"], False, "no native bf16"), ([], True, "GPU")]
)
def test_advice_follows_the_hardware(flags: list[str], gpu: bool, said: str) -> None:
    assert said in " ".join(doctor.advice(flags, gpu))
