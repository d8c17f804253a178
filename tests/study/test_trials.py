"""What one worker uses, no other removes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from twofold.study.locks import held
from twofold.study.trials import Trials


def test_a_model_stays_as_long_as_it_is_used(tmp_path: Path) -> None:
    trials = Trials(tmp_path)
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
