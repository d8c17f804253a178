"""Errors can be caught as ours, or as the built-in kind that a caller would expect."""

from __future__ import annotations

import pytest

from twofold.errors import CheckpointError, ConfigError, DataError, NotComparable, TrainingStopped, TwofoldError


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ConfigError, ValueError),
        (DataError, ValueError),
        (CheckpointError, RuntimeError),
        (NotComparable, ValueError),
        (TrainingStopped, RuntimeError),
    ],
)
def test_each_is_ours_and_of_a_builtin_kind(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, TwofoldError)
    assert issubclass(error, builtin)
