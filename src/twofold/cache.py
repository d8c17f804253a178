"""Where things made once are kept: a folder of the user's, written atomically."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from twofold.errors import ConfigError


def cache_root() -> Path:
    """`$TWOFOLD_CACHE`, else `~/.cache/twofold`."""
    return Path(os.environ.get("TWOFOLD_CACHE") or Path.home() / ".cache" / "twofold")


def backbone_folder(name: str) -> Path:
    """What scripts/get-decoder or get-encoder made for a config's `cache:NAME`. Raises ConfigError for a name that leads elsewhere."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise ConfigError(f"backbone 'cache:{name}': a name is of a-z, 0-9, . and -, such as smollm2")
    return cache_root() / "backbones" / name


def made_once(target: Path, write: Callable[[Path], object]) -> Path:
    """Returns the folder `target`, made by `write(folder)` if it does not exist.

    It is written beside its place and renamed, so that it is there completely or not at all; whoever comes second to the same name uses
    what the first one made.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(making)
        making.chmod(0o755)  # mkdtemp makes a private folder
        try:
            making.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target


def write_text(path: Path, text: str) -> None:
    """Writes or replaces a file, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)  # a temporary file is private, and what is written here is not
    Path(file.name).replace(path)
