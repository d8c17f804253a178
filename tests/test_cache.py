"""What is made once is whole or not there, also when two make it at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from twofold.cache import backbone_folder, cache_root, made_once, write_text
from twofold.errors import ConfigError


def test_the_cache_is_where_the_environment_says(cache_dir: Path) -> None:
    assert cache_root() == cache_dir


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def write(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("content")

    target = tmp_path / "deep" / "target"
    assert made_once(target, write) == made_once(target, write) == target
    assert len(calls) == 1 and (target / "file").read_text() == "content"


def test_a_failed_making_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made_once(tmp_path / "target", write)
    assert list(tmp_path.iterdir()) == []


def test_two_makers_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def write(folder: Path) -> None:
        together.wait(timeout=10)
        (folder / "file").write_text("content")

    makers = [threading.Thread(target=made_once, args=(tmp_path / "target", write)) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [path.name for path in tmp_path.iterdir()] == ["target"] and (tmp_path / "target" / "file").read_text() == "content"


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "file.json", "one")
    write_text(tmp_path / "a" / "file.json", "two")
    assert (tmp_path / "a" / "file.json").stat().st_mode & 0o777 == 0o644, "others may read it"
    assert (tmp_path / "a" / "file.json").read_text() == "two" and len(list((tmp_path / "a").iterdir())) == 1


def test_a_decoder_has_its_folder_below_the_cache(cache_dir: Path) -> None:
    assert backbone_folder("smollm2-8") == cache_dir / "backbones" / "smollm2-8"
    for name in ("", "..", "a/b", "/etc", "A"):
        with pytest.raises(ConfigError, match="a name is of a-z"):
            backbone_folder(name)
