"""API keys: long random words, of which the server keeps only the sha256, and a role each.

A file of keys has one line a key, `NAME ROLE SHA256`; `#` begins a remark. Keys are random, not chosen by people, so one round of
sha256 is enough: there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from twofold.errors import ConfigError

Role: TypeAlias = Literal["use", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""`use`: the model and the index. `admin`: that, and the metrics and the API's description."""
SHORTEST = 20
"""Characters of a key that is given as it is: less can be tried out."""


@dataclass(frozen=True)
class Key:
    """One key, by what is kept of it."""

    name: str
    role: Role
    sha256: str


class Keys:
    """All that are known. Empty: nobody needs one."""

    def __init__(self, known: Sequence[Key] = ()) -> None:
        self.known = tuple(known)

    def __bool__(self) -> bool:
        return bool(self.known)

    def find(self, presented: str) -> Key | None:
        """The key that was presented, or None. Takes as long for a wrong one as for a right one: every hash is compared whole."""
        digest, found = sha256(presented), None
        for key in self.known:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found


def read_keys(file: Path | None, plain: str | None = None) -> Keys:
    """The keys of a file, and one that is given as it is (role admin). Raises ConfigError, naming file and line."""
    known = []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if parts := line.partition("#")[0].split():
                known.append(_key(parts, f"{file}:{number}"))
        if not known:
            raise ConfigError(f"{file}: no key in it; `twofold key NAME` makes one and prints its line")
    if plain is not None:
        if len(plain) < SHORTEST or any(character.isspace() for character in plain):
            raise ConfigError(f"a key of {len(plain)} characters can be guessed: use {SHORTEST} or more, without spaces")
        known.append(Key("environment", "admin", sha256(plain)))
    return Keys(known)


def new_key(name: str, role: Role = "use") -> tuple[str, str]:
    """A fresh key, to be given to its user and kept nowhere, and its line for the file. Raises ConfigError for a name with a space."""
    if not name or len(name.split()) != 1 or "#" in name:
        raise ConfigError(f"key name {name!r}: use one word without #")
    word = f"tf-{secrets.token_urlsafe(32)}"
    return word, f"{name} {role} {sha256(word)}"


def sha256(word: str) -> str:
    """In hexadecimal; whatever a client sent has one."""
    return hashlib.sha256(word.encode("utf-8", "surrogatepass")).hexdigest()


def _key(parts: Sequence[str], where: str) -> Key:
    if len(parts) != 3 or parts[1] not in ROLES or len(parts[2]) != 64 or not set(parts[2]) <= set("0123456789abcdef"):
        raise ConfigError(f"{where}: a line is NAME ROLE SHA256, a role is {' or '.join(ROLES)}")  # not the line itself: it may hold a key
    return Key(parts[0], "admin" if parts[1] == "admin" else "use", parts[2])
