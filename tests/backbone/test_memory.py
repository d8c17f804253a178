"""Keeping freed memory: told on Linux with glibc, and harmless elsewhere. Kernels: few are kept, unless somebody has said how many."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from tests.tiny_trial import write_backbone
from twofold.backbone import memory
from twofold.backbone.load import load_model


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False
    memory.give_back()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert memory.keep_freed_memory() is False
    memory.give_back()


def test_glibc_is_told_both_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: str) -> None:
            self.mallopt = lambda key, value: told.append((key, value)) or 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert memory.keep_freed_memory() is True
    assert told == [(-4, 0), (-1, 1 << 30)]


def test_onednn_keeps_few_kernels_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    memory.bound_kernels()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    load_model(str(write_backbone(tmp_path)))
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == str(memory.KERNELS)
