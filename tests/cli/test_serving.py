"""`serve` and `key` as they are typed; the running server is in tests/serve/test_run.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.typed import run
from twofold.errors import ConfigError


def test_a_public_address_without_a_key_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWOFOLD_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="there is no key"):
        run("serve", "no/such/model", "--host", "0.0.0.0")


def test_keys_are_made_and_read(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(run("key", "laptop").stdout + "not a line\n")
    with pytest.raises(ConfigError, match="keys.txt:2"):
        run("serve", "builtin", "--keys", file)
