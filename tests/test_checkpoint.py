"""Folders that are whole or not there: every way to tear or change one is refused by name, and the generation before it stands."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from twofold import checkpoint
from twofold.checkpoint import MANIFEST, Generations, fingerprint, load_tensors, save_tensors, verify, write_folder
from twofold.errors import CheckpointError

FILES = ("config.json", "experts.safetensors", "state/rng.bin", "state/samplers.json")


def writer(seed: int = 0) -> Callable[[Path], None]:
    """Writes FILES with contents that differ by seed."""

    def write(folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "config.json").write_text(json.dumps({"step": seed}))
        generator = torch.Generator().manual_seed(seed)
        save_tensors(folder / "experts.safetensors", {"a": torch.randn(4, 3, generator=generator), "n": torch.arange(3)})
        (folder / "state" / "rng.bin").write_bytes(random.Random(seed).randbytes(64))
        (folder / "state" / "samplers.json").write_text("{}")

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_folder(tmp_path / "saved", writer())
    return tmp_path / "saved"


# Writing a folder.


def test_a_written_folder_verifies_and_lists_its_files(saved: Path) -> None:
    manifest = verify(saved)
    assert tuple(manifest.files) == FILES
    assert manifest.files["state/rng.bin"].size == 64
    assert sorted(path.name for path in saved.parent.iterdir()) == ["saved"]


def test_the_same_contents_give_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "again", writer())
    assert contents(saved) == contents(tmp_path / "again")


def test_everything_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    flush, move = checkpoint._flush, checkpoint._move_into_place
    monkeypatch.setattr(checkpoint, "_flush", lambda path: (events.append(path.name), flush(path)))
    monkeypatch.setattr(checkpoint, "_move_into_place", lambda *paths: (events.append("MOVE"), move(*paths)))
    write_folder(tmp_path / "saved", writer())
    before, after = events[: events.index("MOVE")], events[events.index("MOVE") + 1 :]
    assert {name.rsplit("/")[-1] for name in (*FILES, MANIFEST, "state")} < set(before)
    assert before[-1].startswith(".saved.")
    assert after == [tmp_path.name]


def test_an_existing_folder_is_not_replaced_unasked(saved: Path) -> None:
    before = contents(saved)
    with pytest.raises(CheckpointError, match="saved: is there already"):
        write_folder(saved, writer(1))
    assert contents(saved) == before
    write_folder(saved, writer(1), overwrite=True)
    assert contents(saved) != before
    verify(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_file_in_the_way_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "saved").write_text("a letter")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="is there already"):
            write_folder(tmp_path / "saved", writer(), overwrite=overwrite)
    assert (tmp_path / "saved").read_text() == "a letter"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    write_folder(tmp_path / "saved", writer())
    verify(tmp_path / "saved")


def test_missing_parents_are_made(tmp_path: Path) -> None:
    write_folder(tmp_path / "a" / "b" / "saved", writer())
    verify(tmp_path / "a" / "b" / "saved")


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda folder: None, "wrote nothing"),
        (lambda folder: (folder / "empty").mkdir(), "wrote nothing"),
        (lambda folder: (folder / MANIFEST).write_text("{}"), "a manifest of its own"),
        (lambda folder: (folder / "link").symlink_to("/etc/hostname"), "saved/link: is a link"),
    ],
)
def test_what_a_writer_may_not_write(tmp_path: Path, write: Callable[[Path], Any], match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        write_folder(tmp_path / "saved", write)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError("a mistake"), KeyboardInterrupt()])
def test_a_writers_own_error_leaves_nothing_behind(saved: Path, error: BaseException) -> None:
    before = contents(saved)

    def fail(folder: Path) -> None:
        writer(1)(folder)
        raise error

    with pytest.raises(type(error)):
        write_folder(saved, fail, overwrite=True)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_failed_replacement_puts_the_old_folder_back(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(saved)
    rename = Path.rename

    def fail_into_place(self: Path, to: Path) -> Path:
        if to == saved and not self.name.endswith(".old.tmp"):
            raise OSError(errno.EIO, "Input/output error", str(self))
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_into_place)
    with pytest.raises(CheckpointError, match="saved: could not be written: Input/output error"):
        write_folder(saved, writer(1), overwrite=True)
    assert contents(saved) == before


# What verify refuses.


def test_folders_that_are_none(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        verify(tmp_path / "nowhere")
    (saved / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=f"{MANIFEST}: No such file"):
        verify(saved)


def test_an_extra_file_is_refused_unless_expected(saved: Path) -> None:
    (saved / ".gitattributes").write_text("")
    verify(saved, extras={".gitattributes"})
    with pytest.raises(CheckpointError, match=r"\.gitattributes: not in the manifest"):
        verify(saved)
    (saved / ".gitattributes").unlink()
    (saved / "state" / "evil.py").write_text("")
    with pytest.raises(CheckpointError, match="state/evil.py: not in the manifest"):
        verify(saved, extras={".gitattributes"})


def test_a_dangling_link_is_an_extra_file(saved: Path) -> None:
    (saved / "dangling").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match="dangling: not in the manifest"):
        verify(saved)


def test_links_to_the_right_contents_verify(saved: Path, tmp_path: Path) -> None:
    """A hub's local cache holds links to blobs."""
    blob = tmp_path / "blob"
    (saved / "config.json").rename(blob)
    (saved / "config.json").symlink_to(blob)
    verify(saved)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_manifest_is_refused_by_name(saved: Path, keep: float) -> None:
    content = (saved / MANIFEST).read_bytes()
    (saved / MANIFEST).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=f"{MANIFEST}: (cut short or )?changed"):
        verify(saved)


@pytest.mark.parametrize(
    "content", ["[]", "null", "3", '{"format": 1}', '{"files": [], "format": 1}', '{"files": {"a": 1}, "format": 1}', "[" * 100_000]
)
def test_a_manifest_that_is_none(saved: Path, content: str) -> None:
    (saved / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match=f"{MANIFEST}: cut short or changed"):
        verify(saved)


def test_a_manifest_of_another_format_says_so(saved: Path) -> None:
    body = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).write_text(json.dumps({**body, "format": 9}))
    with pytest.raises(CheckpointError, match="format 9, and this version of Twofold reads format 1"):
        verify(saved)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", MANIFEST])
def test_a_manifest_cannot_point_outside(saved: Path, name: str) -> None:
    forged = checkpoint.Manifest({name: checkpoint.FileEntry(0, "")})
    (saved / MANIFEST).write_bytes(forged.encode())
    with pytest.raises(CheckpointError, match="is no file of this folder"):
        verify(saved)


def test_every_flipped_byte_of_the_manifest_is_refused(saved: Path) -> None:
    path = saved / MANIFEST
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :])
        with pytest.raises(CheckpointError, match=MANIFEST):
            verify(saved)


def mutate(folder: Path, rng: random.Random) -> str:
    """Damage one file of a folder in a random way; returns its name."""
    name = rng.choice((*FILES, MANIFEST))
    path = folder / name
    content = path.read_bytes()
    at = rng.randrange(len(content))
    kind = rng.choice(("flip", "byte", "cut", "append", "insert", "drop", "zeros", "remove", "swap", "extra"))
    match kind:
        case "flip":
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        case "byte":
            path.write_bytes(content[:at] + bytes([(content[at] + rng.randrange(1, 256)) % 256]) + content[at + 1 :])
        case "cut":
            path.write_bytes(content[:at])
        case "append":
            path.write_bytes(content + rng.randbytes(rng.randrange(1, 9)))
        case "insert":
            path.write_bytes(content[:at] + rng.randbytes(1) + content[at:])
        case "drop":
            path.write_bytes(content[:at] + content[at + 1 :])
        case "zeros":  # what a file system may leave after a power cut; one byte longer, since the file may be zeros already
            path.write_bytes(bytes(len(content) + 1))
        case "remove":
            path.unlink()
        case "swap":
            other = folder / next(each for each in FILES if each != name)
            path.write_bytes(other.read_bytes())
        case "extra":
            name = f"{name}.{rng.randrange(99)}"
            (folder / name).write_bytes(content)
    return name


def test_400_random_mutations_are_refused_by_name(saved: Path, tmp_path: Path) -> None:
    rng = random.Random(2)
    for _ in range(400):
        broken = tmp_path / "broken"
        shutil.copytree(saved, broken)
        name = mutate(broken, rng)
        with pytest.raises(CheckpointError) as caught:
            verify(broken)
        assert str(caught.value).startswith(f"{broken / name}: ")
        shutil.rmtree(broken)


def test_a_file_that_cannot_be_read_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "_entry", fail)
    with pytest.raises(CheckpointError, match="config.json: cannot be read: Input/output error"):
        verify(saved)


# Generations.


def test_no_generation_is_none(tmp_path: Path) -> None:
    assert Generations(tmp_path / "checkpoints").latest() is None
    with pytest.raises(ValueError, match="keep = 0"):
        Generations(tmp_path, keep=0)


def test_the_newest_generations_are_kept(tmp_path: Path) -> None:
    generations = Generations(tmp_path, keep=2)
    for step in (25, 50, 100):
        saved = generations.save(step, writer(step))
        assert generations.latest() == saved == (step, tmp_path / f"step-{step:09d}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000050", "step-000000100"]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "log.jsonl").write_text("")
    generations = Generations(tmp_path, keep=1)
    for step in (1, 2):
        generations.save(step, writer(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "step-000000002", "step-notes"]


@pytest.mark.parametrize("whole", range(len(FILES) + 1))
@pytest.mark.parametrize("tear", ["absent", "empty", "half"])
def test_a_save_torn_at_any_file_falls_back_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: int, tear: str) -> None:
    """A rename that reached the disk before its files did: the first `whole` files are there, the next is torn, the rest absent."""
    Generations(tmp_path).save(25, writer(25))
    newer = Generations(tmp_path).save(50, writer(50)).folder
    order = (*FILES, MANIFEST)
    for name in order[whole:]:
        content = (newer / name).read_bytes()
        (newer / name).unlink()
        if name == order[whole] and tear != "absent":
            (newer / name).write_bytes(content[: len(content) // 2] if tear == "half" else b"")
    with caplog.at_level(logging.WARNING):
        found = Generations(tmp_path).latest()
    assert found is not None
    assert found.step == 25
    assert "going back to step 25" in caplog.text
    assert str(newer) in caplog.text


@pytest.mark.parametrize("whole", range(len(FILES) + 1))
def test_a_kill_while_writing_leaves_the_older_and_is_swept_up_by_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    """A killed process cleans nothing up: its temporary folder stays, with `whole` files in it."""
    Generations(tmp_path).save(25, writer(25))

    def killed(folder: Path) -> None:
        writer(50)(folder)
        for name in FILES[whole:]:
            (folder / name).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            Generations(tmp_path).save(50, killed)
    assert len(list(tmp_path.glob(".step-*.tmp"))) == 1
    found = Generations(tmp_path).latest()
    assert found is not None
    assert found.step == 25
    Generations(tmp_path).save(50, writer(50))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000025", "step-000000050"]


def test_a_disk_that_fails_at_any_call_leaves_the_older_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th open, flush, rename or making of a folder fails, for every n: the older or the new one is complete, never neither."""
    probe, failures = tmp_path / "probe", 0
    for step in (25, 50):
        write_folder(tmp_path / str(step), writer(step))
    expected = {step: contents(tmp_path / str(step)) for step in (25, 50)}
    for n in range(200):
        shutil.rmtree(probe, ignore_errors=True)
        Generations(probe).save(25, writer(25))
        calls = 0

        def failing(real: Callable[..., Any], n: int = n) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == n + 1:
                    raise OSError(errno.ENOSPC, "No space left on device", None if isinstance(args[0], int) else str(args[0]))
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "open"), (Path, "mkdir"), (Path, "rename"), (Path, "open"), (checkpoint, "save_file")):
                patch.setattr(owner, name, failing(getattr(owner, name)))
            try:
                Generations(probe).save(50, writer(50))
            except CheckpointError as error:
                failures += 1
                assert "No space left on device" in str(error)
                assert ".tmp" not in str(error)
                assert not list(probe.glob(".step-*.tmp"))
            else:  # saved; a failure from here on can only befall the look at the older generation
                assert (probe / "step-000000050").is_dir()
        for generation in probe.iterdir():
            verify(generation)
            assert contents(generation) == expected[int(generation.name[-9:])]
        assert (probe / "step-000000025").is_dir()
        if calls <= n:
            break
    assert failures > 15


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_names_the_file(tmp_path: Path, name: str) -> None:
    older = Generations(tmp_path).save(25, writer(25))
    before = contents(older.folder)

    def full(folder: Path) -> None:
        writer(50)(folder)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / name))

    with pytest.raises(CheckpointError, match=f"step-000000050/{name}: could not be written: No space left on device"):
        Generations(tmp_path).save(50, full)
    assert contents(older.folder) == before
    assert [path.name for path in tmp_path.iterdir()] == [older.folder.name]


def test_if_all_are_torn_each_is_named(tmp_path: Path) -> None:
    for step in (25, 50):
        Generations(tmp_path).save(step, writer(step))
    for generation in tmp_path.iterdir():
        (generation / "config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"no complete checkpoint: .*step-000000050/config.json: missing; .*step-000000025/config.json: missing"
    ):
        Generations(tmp_path).latest()


def test_a_torn_generation_does_not_count_as_kept_and_goes_when_enough_whole_ones_follow(tmp_path: Path) -> None:
    for step in (25, 50):
        Generations(tmp_path, keep=2).save(step, writer(step))
    (tmp_path / "step-000000050" / "config.json").unlink()
    Generations(tmp_path, keep=2).save(75, writer(75))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000025", "step-000000050", "step-000000075"]
    Generations(tmp_path, keep=2).save(100, writer(100))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000075", "step-000000100"]


def test_saving_an_earlier_step_gives_up_the_later_ones(tmp_path: Path) -> None:
    generations = Generations(tmp_path, keep=3)
    for step in (25, 50, 75, 60):
        generations.save(step, writer(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000025", "step-000000050", "step-000000060"]


def test_a_torn_generation_is_written_anew(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    for step in (25, 50):
        generations.save(step, writer(step))
    (tmp_path / "step-000000050" / "config.json").write_text("torn")
    generations.save(50, writer(50))
    found = generations.latest()
    assert found is not None
    assert found.step == 50


def test_latest_reads_again_what_was_whole_before(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    for step in (25, 50):
        generations.save(step, writer(step))
    (tmp_path / "step-000000050" / "state" / "rng.bin").write_bytes(b"\0")
    found = generations.latest()
    assert found is not None
    assert found.step == 25


# Tensors and fingerprints.


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "whole": base,
        "transposed": base.T,
        "part": torch.zeros(100)[10:20],
        "learnt": torch.nn.Parameter(torch.ones(2)),
        "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "state": torch.get_rng_state(),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
    }
    save_tensors(tmp_path / "t.safetensors", tensors)
    loaded = load_tensors(tmp_path / "t.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert (tmp_path / "t.safetensors").stat().st_size < 8_000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_values_that_are_not_finite_are_refused_both_ways(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {"good": torch.ones(2), "router.weight": torch.tensor([1.0, value], dtype=dtype)}
    with pytest.raises(CheckpointError, match="t.safetensors: tensor 'router.weight' has values that are not finite"):
        save_tensors(path, tensors)
    assert not path.exists()
    checkpoint.save_file(tensors, path)
    with pytest.raises(CheckpointError, match="t.safetensors: tensor 'router.weight' has values that are not finite"):
        load_tensors(path)


def test_files_that_hold_no_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere.safetensors: cannot be read"):
        load_tensors(tmp_path / "nowhere.safetensors")
    for content in (b"", b"garbage", b"\xff" * 64):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="bad.safetensors: cannot be read"):
            load_tensors(tmp_path / "bad.safetensors")


def test_tensors_that_cannot_be_written_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="t.safetensors: could not be written"):
        save_tensors(tmp_path / "nowhere" / "t.safetensors", {"a": torch.ones(1)})
    shared = torch.ones(4)
    with pytest.raises(CheckpointError, match="t.safetensors: could not be written: Some tensors share memory.*tied"):
        save_tensors(tmp_path / "t.safetensors", {"one": shared, "tied": shared})


def test_a_fingerprint_depends_on_names_and_values_only() -> None:
    one = fingerprint({"backbone": "a", "prompts": "b"})
    assert one == fingerprint({"prompts": "b", "backbone": "a"})
    others = [{"backbone": "b", "prompts": "a"}, {"backbone": "ab", "prompts": ""}, {"backbone": "a"}, {"backbone": "a", "prompt": "b"}]
    assert len({one, *map(fingerprint, others)}) == 5
