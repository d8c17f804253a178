"""Errors that a caller can act on. Each says what is wrong, the value, and what would be right."""

from __future__ import annotations


class TwofoldError(Exception):
    """Base of every error that Twofold raises on purpose."""


class ConfigError(TwofoldError, ValueError):
    """A setting, plug-in name or option that does not exist or does not fit."""


class DataError(TwofoldError, ValueError):
    """A data file that cannot be used as it is; the message begins with `file:line:` where there is a line."""


class CheckpointError(TwofoldError, RuntimeError):
    """A saved folder that is torn, changed, incomplete, or made for something else."""


class NotComparable(TwofoldError, ValueError):
    """Two results that must not be set side by side; the message names every field that differs."""


class TrainingStopped(TwofoldError, RuntimeError):
    """Training ended before its last step: a loss was not a number, or the process was asked to stop. The last good checkpoint stands."""


class TrainingInterrupted(TrainingStopped):
    """Somebody asked the process to stop: nothing is wrong with what it trained."""
