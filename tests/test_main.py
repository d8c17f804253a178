"""The package runs as a command."""

from __future__ import annotations

import subprocess
import sys


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "twofold", "routers", "--json"], capture_output=True, text=True, check=True)
    assert "soft" in done.stdout
