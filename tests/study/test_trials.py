"""What one worker uses, no other removes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from twofold.study.locks import held
from twofold.study.trials import Trials


def test_a_model_stays_as_long_as_it_is_used(tmp_path: Path) -> None:
    trials = Trials(tmp_path, "mine", checkpoints=False)
    with ExitStack() as mine, ExitStack() as others:
        assert not trials.stays("a", mine)
        with held(trials.lock("a")) as alone:  # so that it can be trained
            assert alone
        trials.model("a").mkdir(parents=True)
        assert trials.stays("a", mine) and trials.stays("a", others)
        for user in (mine, others):
            with held(trials.lock("a")) as alone:
                assert not alone
            user.close()
        with held(trials.lock("a")) as alone:
            assert alone


def test_what_is_in_use_is_let_go_of_and_removed_by_whoever_comes_last(tmp_path: Path) -> None:
    mine, other = (Trials(tmp_path, name, checkpoints=False) for name in ("mine", "other"))
    mine.model("a").mkdir(parents=True)
    with ExitStack() as locks:
        assert mine.stays("a", locks) and other.stays("a", locks)
        mine.tidy("a", needed=False)
        assert mine.model("a").is_dir()
    other.tidy("a", needed=False)
    assert not mine.folder("a").exists()


def test_what_is_not_trained_yet_is_left(tmp_path: Path) -> None:
    trials = Trials(tmp_path, "mine", checkpoints=True)
    trials.keep("a")
    trials.tidy("a", needed=False)
    assert trials.folder("a").is_dir() and not list(trials.folder("a").iterdir())
    trials.tidy("never", needed=True)
    assert not trials.folder("never").exists()
