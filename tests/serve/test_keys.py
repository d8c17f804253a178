"""Keys are kept as hashes, and a file of them is read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.errors import ConfigError
from twofold.serve.keys import Keys, new_key, read_keys


def test_a_new_key_is_found_and_kept_nowhere(keys_file: Path) -> None:
    word, line = new_key("laptop", "admin")
    other, second = new_key("robot")
    keys_file.write_text(f"# ours\n{line}  # since May\n\n{second}\n")
    keys = read_keys(keys_file, "a-key-from-the-environment")
    assert word not in keys_file.read_text() and word not in repr(keys.known)
    roles = {each: key.role for each in (word, other, "a-key-from-the-environment") if (key := keys.find(each))}
    assert list(roles.values()) == ["admin", "use", "admin"]
    assert keys.find(word[:-1]) is None and keys.find("") is None and keys.find("\ud800") is None
    assert keys and not Keys()


@pytest.mark.parametrize("line", ["laptop use 1234", "laptop root " + "a" * 64, "a b c d", "laptop use " + "G" * 64])
def test_a_wrong_line_is_named_and_not_shown(line: str, keys_file: Path) -> None:
    keys_file.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match=r"keys.txt:2: a line is NAME ROLE SHA256") as told:
        read_keys(keys_file)
    assert line not in str(told.value)


def test_what_can_be_guessed_or_is_not_there_is_refused(keys_file: Path) -> None:
    with pytest.raises(ConfigError, match="can be guessed"):
        read_keys(None, "secret")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(keys_file)
    keys_file.write_text("# nothing\n")
    with pytest.raises(ConfigError, match="twofold key"):
        read_keys(keys_file)
    with pytest.raises(ConfigError, match="one word"):
        new_key("my laptop")
    assert not read_keys(None)
