"""Keeping freed memory: told on Linux with glibc, and harmless elsewhere."""

from __future__ import annotations

import ctypes
import sys

import pytest

from twofold.backbone import memory


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert memory.keep_freed_memory() is False


def test_glibc_is_told_both_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: str) -> None:
            self.mallopt = lambda key, value: told.append((key, value)) or 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert memory.keep_freed_memory() is True
    assert told == [(-4, 0), (-1, 1 << 30)]
