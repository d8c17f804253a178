"""A lock on a file that the kernel lets go of when its owner dies, however it dies: nothing to time out, nothing to clean up.

`flock` works between the processes of a machine and, on a Linux client, over NFS; what other file systems make of it, they say.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from twofold.errors import ConfigError


@contextmanager
def held(path: Path, *, wait: bool = False, shared: bool = False) -> Iterator[bool]:
    """Holds `path`'s lock inside the block, alone or with all others for whom it is `shared`; yields False where it cannot be had and
    `wait` is not set.

    The file says who has it (of several, who took it last), for people. Raises ConfigError on a system without `flock`.
    """
    try:
        import fcntl
    except ImportError as error:
        raise ConfigError(f"{platform.system()} has no flock, by which studies are shared: run them on Linux or macOS") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        owner = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        try:
            yield True
        finally:
            if not shared:  # others may have it still, and what the file says counts only as long as somebody has it
                os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def owner(path: Path) -> dict[str, str] | None:
    """Who holds a lock, as its file says; None where nobody does (also where its owner was killed)."""
    if not path.is_file():
        return None
    with held(path) as free:
        if free:
            return None
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
