"""What models weigh in memory, measured from outside: a process of its own loads them, works, and says by how much it grew."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil

from twofold.core.inject import LayerPlan
from twofold.model import folder
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.unified import UnifiedModel

CHILD = "import sys; from twofold.model.footprint import grown; sys.stdout.write(str(grown(sys.argv[1], int(sys.argv[2]))))"


def footprint(model: str | Path, apart: int = 0) -> float:
    """Megabytes by which a fresh process grows when it loads the saved model and both embeds and scores with it.

    `apart`: so many copies of its bare backbone instead: what separate models weigh. Raises RuntimeError where the process fails.
    """
    done = subprocess.run([sys.executable, "-c", CHILD, str(model), str(apart)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"could not measure the memory of {model}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return float(done.stdout.split()[-1])


def grown(model: str, apart: int) -> float:
    """The child's part of `footprint`, in this process: libraries and first-use buffers are there before the first look."""
    bare = replace(ModelSpec.from_dict(folder.read_config(folder.locate(model))["spec"]), plan=LayerPlan())
    _work(build_model(bare))
    before = resident()
    models = [build_model(bare) for _ in range(apart)] or [folder.load(model)]
    for each in models:
        _work(each)
    for each in models:  # a file that is mapped into memory counts only where it was read: few texts use few rows of the word table
        _ = [float(parameter.detach().sum()) for parameter in each.parameters()]
    return resident() - before


def _work(model: UnifiedModel) -> None:
    """A few texts and pairs, as far as the model does them."""
    if "retrieve" in model.tasks:
        model.encode(["a text of a few words"] * 4)
    if "rerank" in model.tasks:
        model.score([("a query", "a document of a few words")] * 4)


def resident() -> float:
    """Megabytes of this process in memory, after what was freed has gone back to the system (glibc keeps it otherwise)."""
    gc.collect()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    return float(psutil.Process().memory_info().rss / 1e6)
