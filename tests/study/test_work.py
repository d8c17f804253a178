"""A study is done once, goes on where it was killed, is shared without doing anything twice, and tidies up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.study.conftest import MakeStore
from twofold import toml
from twofold.config import TrialConfig
from twofold.errors import ConfigError, TrainingInterrupted
from twofold.study.grid import Cell, cells
from twofold.study.locks import held
from twofold.study.store import Store
from twofold.study.trials import Trials
from twofold.study.work import TIMING, Worker


def files(store: Store) -> dict[str, float]:
    return {path.name: path.stat().st_mtime for path in store.folder.glob("*.json")}


def test_the_whole_grid_is_done_and_only_once(finished: Store) -> None:
    before = files(finished)
    assert len(before) == 3 * 2 + 4 * 2  # three arms that learn × two rates, four arms × two seeds
    progress = Worker(finished, finished.folder.parents[1] / "trials").run()
    assert files(finished) == before and (progress.cells, progress.cells_done, progress.sweeps_done) == (8, 8, 6)
    trials = [path for path in (finished.folder.parents[1] / "trials").iterdir() if path.is_dir()]
    assert trials == []  # nothing is kept unless the study says so


def test_a_cell_says_what_it_is_and_what_it_scored(finished: Store) -> None:
    for cell in cells(finished.study):
        found = finished.get(finished.resolved(cell) or cell)
        assert found is not None and found["cell"]["arm"] == cell.arm
        (test,) = found["tests"].values()
        rows = {"dense": 4} if cell.arm == "alone" else {"dense": 4, "rerank": 3, "pipeline": 3}
        assert {row: len(values) for row, values in test["per_query"].items()} == rows
        for row, values in test["per_query"].items():
            assert test["rows"][row]["nDCG@10"] == pytest.approx(sum(values.values()) / len(values), abs=1e-5)
        assert found["environment"]["versions"]["twofold"] and found["seconds"]["measure"] >= 0 and 0 <= test["candidates"]["present"] <= 1
        assert set(found["dev"]) == ({"retrieve"} if cell.arm == "alone" else {"retrieve", "rerank"})
        assert (found["lr"] in (1e-3, 5e-3)) == (cell.arm != "mean")
        weights = [sum(layer.values()) for task in found["gates"].values() for layer in task.values()]
        assert weights and all(abs(weight - (3 if cell.arm in ("moe", "mean") else 1)) < 0.01 for weight in weights)


def test_every_arm_reranks_the_same_candidates(finished: Store) -> None:
    found = [finished.get(finished.resolved(cell) or cell) for cell in cells(finished.study)]
    assert len({next(iter(each["tests"].values()))["candidates"]["sha256"] for each in found if each}) == 1


def test_the_rate_with_the_best_dev_score_is_taken(finished: Store) -> None:
    cell = Cell("made", "bert", "one", 1)
    runs = {path: json.loads(path.read_text()) for path in finished.folder.glob("sweep-*-one-*")}
    best = max(runs.values(), key=lambda run: (run["criterion"], -run["lr"]))
    assert finished.chosen(cell) == best["lr"]
    assert best["criterion"] == pytest.approx(sum(best["dev"].values()) / 2, abs=1e-5)
    assert best["trial"] == finished.get(finished.resolved(Cell("made", "bert", "one", 0)))["trial"]  # type: ignore[arg-type, index]


def test_kept_models_stay_and_what_lost_the_sweep_goes(store: MakeStore, tmp_path: Path) -> None:
    kept = store(study={"keep": True, "seeds": [0]})
    Worker(kept, tmp_path / "trials", ("*/moe/*",)).run()
    (trial,) = [path for path in (tmp_path / "trials").iterdir() if path.is_dir()]
    assert {path.name for path in trial.iterdir()} == {"config.toml", "model", TIMING, ".model-kept-by-tiny"}


def test_what_one_study_keeps_another_leaves_alone(store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_trial(config: TrialConfig, folder: Path, **_: object) -> object:
        for part in ("model", "members"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return object()

    def parts() -> set[str]:
        return {path.name for path in (tmp_path / "trials").glob("*/m*")}

    monkeypatch.setattr("twofold.study.work.run_trial", run_trial)
    flags = {"first": (True, True), "second": (False, False), "third": (True, False)}
    workers = {}
    for name, (keep, checkpoints) in flags.items():
        mine = store(name, study={"name": name, "keep": keep, "checkpoints": checkpoints}, sweep={"lr": []})
        workers[name] = Worker(mine, tmp_path / "trials")
        with ExitStack() as locks:
            workers[name].train(Cell("made", "bert", "one", 0), locks)
    mine.put(Cell("made", "bert", "one", 0), {"criterion": 0.5})  # which is done for all
    for name in ("second", "third", "first"):
        workers[name].tidy()
        assert parts() == {"model", "members"}
    for name, left in (("first", {"model"}), ("third", set())):
        Worker(store(name, study={"name": name}, sweep={"lr": []}), tmp_path / "trials").tidy()  # as if its file said so now
        assert parts() == left


def test_a_model_of_a_study_that_saved_less_often_is_used(store: MakeStore, tmp_path: Path) -> None:
    """How often a trial is saved is not part of its key, so another study's model is this one's, whatever its checkpoints."""
    kept = store(study={"keep": True, "seeds": [0]})
    Worker(kept, tmp_path / "trials", ("*/moe/*",)).run()
    other = store(study={"keep": True, "seeds": [0], "name": "other"}, base={"checkpoint": {"every": 3, "keep": 2}})
    said: list[str] = []
    worker = Worker(other, tmp_path / "trials", ("*/mean/*",), said.append)
    assert worker.run().cells_done == 1 and not any("training unified" in line for line in said)
    with ExitStack() as locks:
        trained = worker.train(other.resolved(Cell("made", "bert", "moe", 0)), locks)  # type: ignore[arg-type]
    assert trained.seconds == 0 and "is there already" in said[-1]


def test_what_another_process_holds_is_left_to_it(store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its first job in other hands a worker takes the next, and does the first when it is let go of."""
    monkeypatch.setattr("twofold.study.work.PAUSE", 0.01)
    mine = store(study={"seeds": [0]})
    worker = Worker(mine, tmp_path / "trials", ("*/one/*",))
    first, second = list(worker.todo())[:2]
    done: list[Cell] = []
    monkeypatch.setattr(
        worker, "do", lambda cell: (done.append(cell), mine.put(cell, {"criterion": 0.0, "seconds": {"train": 1.0, "measure": 1.0}}))
    )
    with held(worker.lock(first)) as got:
        assert got
        thread = threading.Thread(target=worker.run)
        thread.start()
        while not done:
            time.sleep(0.01)
        assert first not in done
    thread.join(timeout=20)
    assert done[0] == second and sorted(done[:2], key=str) == sorted([first, second], key=str) and len(done) == 3


def test_arms_that_start_from_one_model_are_trained_at_the_same_time(
    store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits in its training for the other to come there, and meanwhile nobody can have the model that they start from alone.

    Both find that this model is not there yet, so that one of them has to train it for both.
    """
    both, trained, looked, stays = threading.Barrier(2, timeout=20), list[Path](), set[int](), Trials.stays

    def look(self: Trials, key: str, locks: ExitStack) -> bool:
        found = stays(self, key, locks)
        if threading.get_ident() not in looked:
            looked.add(threading.get_ident())
            both.wait()
        return found

    def run_trial(config: TrialConfig, folder: Path, **_: object) -> object:
        if not (folder / "model").is_dir():
            trained.append(folder)
        if config.start:
            assert Path(config.start).is_dir()
            both.wait()
            with held(Path(config.start).parents[1] / f".{Path(config.start).parent.name}.lock") as alone:
                assert not alone
            both.wait()
        (folder / "model").mkdir(parents=True, exist_ok=True)
        return object()

    monkeypatch.setattr("twofold.study.work.run_trial", run_trial)
    monkeypatch.setattr(Trials, "stays", look)
    twins = {rule: {"what": rule, "method": {"name": "twin", "options": {"rule": rule}}, "start": "moe"} for rule in ("hard", "permuted")}
    mine = store(sweep={"lr": []}, arms=twins)

    def train(arm: str) -> Path:
        with ExitStack() as locks:
            return Worker(mine, tmp_path / "trials").train(Cell("made", "bert", arm, 0), locks).folder

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(train, twins))
    assert set(trained[1:]) == set(found) and len(trained) == 3


def test_no_cell_is_begun_that_would_be_cut_off(store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = store(study={"seeds": [0]})
    worker = Worker(mine, tmp_path / "trials", ("*/one/*",))
    took = {"train": 100.0, "measure": 20.0}
    monkeypatch.setattr(worker, "do", lambda cell: mine.put(cell, {"criterion": 0.0, "seconds": took}))
    progress = worker.run(minutes=1.0)
    assert (progress.sweeps_done, progress.cells_done) == (1, 0)
    assert progress.seconds == pytest.approx(120 + 20) and "at least 2 minutes" in str(progress)


def test_a_sweep_that_nothing_could_decide_is_refused_before_it_costs_anything(
    made: tuple[Path, Path], store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data without a dev split, and with one training query, too few to take one from. One rate alone, or no sweep, needs none."""
    blind, took = shutil.copytree(made[1], tmp_path / "blind"), {"train": 1.0, "measure": 1.0}
    (blind / "qrels" / "dev.tsv").unlink()
    train = blind / "qrels" / "train.tsv"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:2]))
    monkeypatch.setattr(Worker, "do", lambda self, cell: self.store.put(cell, {"criterion": None, "seconds": took}))
    changes = {"study": {"seeds": [0]}, "data": {"made": {"train": [str(blind)]}}}
    worker = Worker(store(**changes), tmp_path / "trials", ("*/mean/*",))
    said = r"data 'made': .*/blind has no dev split that measures retrieve, rerank, .* of arm 'moe': add one, or say sweep = false"
    with pytest.raises(ConfigError, match=said):
        worker.run()
    assert not worker.store.folder.exists()
    arms = {arm: {"sweep": False} for arm in ("one", "alone", "moe")}
    for name, more in (("single", {"sweep": {"lr": [1e-3]}}), ("none", {"arms": arms})):
        assert Worker(store(f"{name}/tiny", **changes, **more), tmp_path / "trials").run().cells_done == 4


def test_a_job_that_fails_is_told_and_ends_nothing_else(store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate at which it fails: its arm has no cell, as its sweep is not whole; the others' have."""
    mine, said = store(study={"seeds": [0]}), list[str]()
    worker = Worker(mine, tmp_path / "trials", say=said.append)

    def do(cell: Cell) -> None:
        if cell.arm == "one" and cell.lr == 5e-3:
            raise RuntimeError("out of memory")
        mine.put(cell, {"criterion": 0.0, "lr": cell.lr, "seconds": {"train": 1.0, "measure": 1.0}})

    monkeypatch.setattr(worker, "do", do)
    monkeypatch.setattr(worker, "adopt", lambda: None)
    monkeypatch.setattr(worker, "tidy", lambda: None)
    progress = worker.run()
    assert worker.failed == {"made/bert/one/lr0.005": "RuntimeError: out of memory"}
    assert any("made/bert/one/lr0.005: failed" in line and "Traceback" in line for line in said)
    assert (progress.sweeps_done, progress.cells_done) == (5, 3)  # of 6 and 4


def test_asked_to_stop_it_stops(store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(store(), tmp_path / "trials")

    def do(_: Cell) -> None:
        raise TrainingInterrupted("stopped by SIGTERM after step 2")

    monkeypatch.setattr(worker, "do", do)
    with pytest.raises(TrainingInterrupted):
        worker.run()
    assert not worker.failed


@pytest.mark.slow
def test_a_kill_in_the_middle_costs_at_most_the_last_checkpoint(store: MakeStore, tmp_path: Path) -> None:
    """Killed by the kernel between two checkpoints, another process takes the cell over and goes on from the last, to the same numbers."""
    changes = {"sweep": {"lr": []}, "study": {"seeds": [0], "keep": True}}
    whole, cut = store("whole/tiny", **changes), store("cut/tiny", **changes)  # apart, or the second would find what the first has done
    (cell,) = list(cells(whole.study, ("*/one/*",)))
    Worker(whole, tmp_path / "whole", ("*/one/*",)).do(cell)
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    (tmp_path / "study.json").write_text(cut.study.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert cut.get(cell) is None
    said: list[str] = []
    Worker(cut, tmp_path / "cut", ("*/one/*",), said.append).run()
    assert any("going on after step 2" in line for line in said)
    (ours,), (theirs,) = (each.get(cell)["tests"].values() for each in (cut, whole))  # type: ignore[index]
    assert ours["per_query"] == theirs["per_query"]


CHILD = """
import json, os, signal, sys
from pathlib import Path
from twofold.study.file import make
from twofold.study.sample import Samples
from twofold.study.store import Store
from twofold.study.work import Worker
from twofold.train.watch import MemberWatch

here = Path(sys.argv[1])
study = make(json.loads((here / "study.json").read_text()))
after = MemberWatch._after_step

def dying(self, state, report, phase):
    if state.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    after(self, state, report, phase)

MemberWatch._after_step = dying
Worker(Store(study, here / "results" / "cut" / "tiny", Samples(study.measure)), here / "cut", ("*/one/*",)).run()
"""


@pytest.mark.slow
def test_two_processes_share_the_work(made: tuple[Path, Path], store: MakeStore, tmp_path: Path) -> None:
    """`--jobs 2`: every cell is there once, and both were at work or the second found all done; nothing is torn."""
    mine = store(sweep={"lr": []}, study={"seeds": [0]})
    values = mine.study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    (tmp_path / "tiny.toml").write_text(toml.dump(values))
    command = [sys.executable, "-c", "from twofold.cli import main; main()", "study", "run", "tiny.toml", "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(done.stderr.count(f"{cell.label}: done") == 1 for cell in cells(mine.study))
    assert len(list((tmp_path / "results" / "studies" / "tiny").glob("*.json"))) == 4
