"""Where a number comes from: the versions, processor, threads and commit that go beside it in a result file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "twofold",
    "torch",
    "transformers",
    "accelerate",
    "sentence-transformers",
    "peft",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "bm25s",
    "ir_measures",
    "lancedb",
    "onnxruntime",
    "openvino",
    "qdrant-client",
    "pyarrow",
)
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve")
"""Processor features that decide how fast a matrix product is, in each precision."""
CODE = ("src", "bench", "scripts", "pyproject.toml")
"""What makes a checkout `dirty`: results and notes do not change what was measured."""


def environment() -> dict[str, Any]:
    """The facts that a measurement depends on, as JSON types: no host name, user name or path.

    Keys: `python`, `platform`, `cpu` (`model`, `cores` usable by this process, `flags` of interest), `threads` (of torch where
    it is loaded), `accelerators` present, `versions`, `commit` and `dirty` (null outside a checkout of Twofold), `date` (UTC).
    """
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "threads": _threads(),
        "accelerators": _accelerators(),
        "versions": versions(),
        **checkout(Path(__file__).resolve().parent),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def cpu() -> dict[str, Any]:
    """The processor's `model`, the `cores` that this process may use, and its `flags` of interest."""
    model, flags = _cpuinfo()
    return {"model": model, "cores": _cores(), "flags": [flag for flag in FLAGS if flag in flags]}


def versions() -> dict[str, str]:
    """Installed versions of what a number may depend on; packages that are absent are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def checkout(package: Path) -> dict[str, Any]:
    """`commit` and `dirty` (has the code changed since?) of the checkout whose `src/twofold` is `package`, else both None.

    A package installed into somebody else's repository must not report that repository's commit. A copy of a checkout that was carried to
    a machine without its `.git` is told by TWOFOLD_COMMIT of which commit it is.
    """
    if package.parent.name != "src" or not (package.parent.parent / ".git").exists():
        told = os.environ.get("TWOFOLD_COMMIT")
        return {"commit": told, "dirty": False} if told else {"commit": None, "dirty": None}
    root = package.parent.parent
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *CODE)
    if commit is None or changed is None:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, timeout=20, check=True, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpuinfo() -> tuple[str, set[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _processor(), set()
    facts = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    return facts.get("model name") or _processor(), set((facts.get("flags") or facts.get("features") or "").split())


def _processor() -> str:
    if sys.platform == "darwin":
        try:
            return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads() -> int:
    torch: Any = sys.modules.get("torch")  # asked only where it is loaded: this module must stay quick to import
    if torch is not None:
        return int(torch.get_num_threads())
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdigit() else _cores()


def _accelerators() -> list[str]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return []
    if torch.cuda.is_available():
        return [str(torch.cuda.get_device_name(index)) for index in range(torch.cuda.device_count())]
    return ["Apple MPS"] if torch.backends.mps.is_available() else []
