"""The weights that come inside the package: where they are, what they are known by, and what they were trained on.

`twofold.load("builtin")` opens them over all-MiniLM-L6-v2, from its package or, where that is not installed, by its hub name; the
backbone's sha256 is compared in either case.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from twofold.checkpoint import MANIFEST
from twofold.errors import CheckpointError

NAME = "builtin"
FOLDER = Path(__file__).resolve().parents[1] / "builtin"
SHA256 = "9cdc99a62b42e7b2dcd8d42190492ecaac3deb4ed24d48067e8501f631a6507b"
"""Of the folder's manifest, which holds the sha256 of every file."""

ABOUT: dict[str, Any] = {
    "name": NAME,
    "license": "cc-by-sa-4.0",
    "language": ["en"],
    "base_model": "sentence-transformers/all-MiniLM-L6-v2",
    "attribution": [
        "SciFact, train split: claims CC BY 4.0 (Wadden et al. 2020, Allen Institute for AI), abstracts ODC-By 1.0 (S2ORC).",
        "SQuAD 1.1, CC BY-SA 4.0 (Rajpurkar et al. 2016). The questions and passages here are SQuAD's development set, split by article "
        "into train, dev and test: do not report these weights on SQuAD's development set.",
        "MedQuAD, CC BY 4.0 (Ben Abacha and Demner-Fushman 2019); its test questions (TREC LiveQA 2017) were not trained on.",
        "The docstrings and sources of the Python standard library, PSF License (pydocs, made from the Python that trained).",
        "The dev split of CoSQA (C-UDA), which was not trained on, chose the share of the pair score in a pipeline.",
        "Backbone: all-MiniLM-L6-v2, Apache-2.0 (Reimers and Gurevych 2019; Wang et al. 2020), unchanged and not inside.",
    ],
}
"""Facts for the card: only the train splits of these sets were learnt from."""


def builtin_folder() -> Path:
    """The folder inside the package. Raises CheckpointError where it is missing or not the one that this version came with."""
    try:
        found = hashlib.sha256((FOLDER / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{FOLDER}: the built-in weights are missing from this installation; install twofold again") from error
    if found != SHA256:
        raise CheckpointError(f"{FOLDER}: the built-in weights are not those of this version (manifest {found[:12]}…, not {SHA256[:12]}…)")
    return FOLDER
