"""What the reliability benchmarks share: the form of a result, a log of changes that a killed process leaves behind, the peak of memory."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from twofold import provenance


@dataclass(frozen=True)
class Change:
    """One change of an index: documents put in, with their digest and numbers of passages, or taken out."""

    number: int
    digest: str
    sizes: dict[str, int]
    removed: list[str]

    @property
    def kind(self) -> str:
        return "a write" if self.sizes else "a removal" if self.removed else "putting in order"

    def applied(self, documents: dict[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
        """Document → (digest, passages), after the change."""
        kept = {name: each for name, each in documents.items() if name not in self.removed}
        return {**kept, **{name: (self.digest, size) for name, size in self.sizes.items()}}


def write_line(file: TextIO, change: Change, done: bool) -> None:
    """Notes that a change begins, or that it was acknowledged; in the kernel's hands when this returns, so SIGKILL does not undo it."""
    file.write(json.dumps({**asdict(change), "done": done}) + "\n")
    file.flush()


def read_log(path: Path) -> tuple[list[Change], Change | None]:
    """The changes that were acknowledged, and the one that was under way. A last line that is cut short had not begun."""
    done: list[Change] = []
    begun: Change | None = None
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        fields = json.loads(line)
        acknowledged = fields.pop("done")
        begun = None if acknowledged else Change(**fields)
        if acknowledged:
            done.append(Change(**fields))
    return done, begun


def report(name: str, doc: str | None, scoreboard: Sequence[tuple[str, Any]], to: Path | None, **figures: Any) -> dict[str, Any]:
    """A result, written as JSON where asked."""
    content = {
        "scoreboard": [{"id": id, "value": value} for id, value in scoreboard],
        "kind": "reliability",
        "name": name,
        "what": (doc or "").strip(),
        **figures,
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "environment": provenance.environment(),
    }
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return content


def peak_resident() -> float:
    """Megabytes that this process had in memory at most; 0 where the system does not say.

    Not `ru_maxrss`: through fork and exec a child inherits its parent's.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1.024e-3 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)
