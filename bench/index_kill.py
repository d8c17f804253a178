"""The index under kill -9, beside a dict, and with damaged files (T4).

Kills: a process writes random documents (new, replaced, removed; the store is put in order now and then), notes each change before it
begins and after it was acknowledged, and is killed with SIGKILL at a random moment, again and again on the same folder. After each kill the
store is opened and compared: every acknowledged document with every passage, nothing that was removed, and of the change that was under
way all or nothing. Operations: random operations on a store and on a dict beside it (tests/search/machine.py). Damage: a bit flipped, an
end cut off, a part zeroed or swapped, in the files of an index; opening and reading all of it must refuse, naming the file, or give the
same as before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench._report import Change, read_log, report, write_line
from tests.search.made import passages, vectors
from twofold import plugins
from twofold.errors import TwofoldError
from twofold.search.stores import Store

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("kills", "damage", "against_a_dict")
WIDTH = 64
DOCUMENTS = 400
"""Names that random documents have."""


def opened(store: str, folder: Path, width: int = WIDTH) -> Store:
    made: Store = plugins.build_plugin("search/stores", store, {}, folder=folder, width=width)
    return made


def word_of(digest: str) -> str:
    """A word that only the passages of one change have."""
    return f"w{digest.replace('-', 'x')}"


def write(store: Store, log: Path, seed: int) -> None:
    """Changes the store at random, without end."""
    draw = random.Random(seed)
    there = set(store.documents())
    with log.open("a", encoding="utf-8") as file:
        for number in range(10**9):
            names = [f"d{n}" for n in draw.sample(range(DOCUMENTS), draw.randint(1, 20))]
            kind = draw.choices(["put", "remove", "optimize"], [8, 2, 1])[0]
            digest = f"{seed}-{number}"
            sizes = {name: draw.randint(1, 6) for name in names} if kind == "put" else {}
            write_line(file, Change(number, digest, sizes, names if kind == "remove" else []), done=False)
            if kind == "put":
                rows = [row for name in names for row in passages(name, sizes[name], word_of(digest), digest)]
                store.upsert(rows, vectors(len(rows), number, WIDTH), new=there.isdisjoint(names))
                there |= set(names)
            elif kind == "remove":
                store.delete(names)
                there -= set(names)
            else:
                store.optimize()
            write_line(file, Change(number, digest, sizes, names if kind == "remove" else []), done=True)


class Nursery:
    """A process that has loaded the libraries, opened nothing, and forks writers: loading takes longer than a writer lives."""

    def __init__(self, store: str) -> None:
        command = [sys.executable, "-m", "bench.index_kill", "--nursery", store]
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def writer(self, place: Path, log: Path, seed: int) -> int:
        """Starts a writer, and waits until it has begun its first change. Its process id."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(place, log, seed, sep="\t", file=self.process.stdin, flush=True)
        writer = int(self.process.stdout.readline())
        for _ in range(30_000):
            if log.exists():
                return writer
            os.kill(writer, 0)  # raises where it ended by itself
            time.sleep(0.01)
        raise SystemExit(f"writer {writer} has written nothing in five minutes")

    def kill(self, writer: int) -> None:
        """Kills it and waits until it is gone."""
        os.kill(writer, signal.SIGKILL)
        while True:
            try:
                os.kill(writer, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)

    def close(self) -> None:
        self.process.communicate()


def nursery(store: str) -> None:
    """What a `Nursery` runs."""
    plugins.load("search/stores", store)
    if store == "lancedb":
        importlib.import_module("lancedb.index")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are not kept
    for line in sys.stdin:
        place, log, seed = line.rstrip("\n").split("\t")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # forking is said to be experimental
            child = os.fork()
        if child == 0:
            write(opened(store, Path(place)), Path(log), int(seed))
        print(child, flush=True)


def compare(store: Store, expected: dict[str, tuple[str, int]], open_change: Change | None) -> tuple[list[str], dict[str, tuple[str, int]]]:
    """What is wrong after a kill, and what the store holds: document → (digest, passages)."""
    known = store.documents()
    sizes: Counter[str] = Counter()
    every = [f"{name}#{n}" for name in known for n in range(6)]
    found = [row for start in range(0, len(every), 900) for row in store.get(every[start : start + 900])]
    for row in found:
        sizes[row.document] += 1
    holds = {name: (each.digest, sizes[name]) for name, each in known.items()}
    wrong = [] if store.count() == len(found) else [f"{store.count()} passages, {len(found)} by their ids"]
    wrong += [f"{row.id}: its digest is {row.digest}" for row in found if row.digest != known[row.document].digest]
    before, after = expected, dict(expected)
    if open_change is not None:
        after = open_change.applied(expected)
    if holds not in (before, after):
        differ = [name for name in {**holds, **after, **before} if holds.get(name) not in (before.get(name), after.get(name))]
        wrong.append(f"lost or half written: {differ[:5] or 'a change that was neither done nor undone'}")
    for digest in sorted({row.digest for row in found}, key=lambda digest: [int(part) for part in digest.split("-")])[-3:]:
        hits = {match.passage.id for match in store.lexical(word_of(digest), len(found))}
        if hits != {row.id for row in found if row.digest == digest}:
            wrong.append(f"{digest}: by its word, {len(hits)} passages are found")
    return wrong, holds


def kill(store: str, rounds: int, longest: float, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Kills a writer `rounds` times."""
    draw = random.Random(seed)
    place, log = folder / "index", folder / "log"
    expected: dict[str, tuple[str, int]] = {}
    good, complaints, acknowledged, under_way = 0, list[str](), 0, Counter[str]()
    nursery = Nursery(store)
    for number in range(rounds):
        log.unlink(missing_ok=True)
        writer = nursery.writer(place, log, seed * 1000 + number)
        time.sleep(draw.uniform(0, longest))
        nursery.kill(writer)
        done, open_change = read_log(log)
        acknowledged += len(done)
        for change in done:
            expected = change.applied(expected)
        under_way["nothing" if open_change is None else open_change.kind] += 1
        try:
            again = opened(store, place)
            wrong, expected = compare(again, expected, open_change)
            again.close()
        except TwofoldError as error:
            wrong = [f"did not open: {error}"]
        good += not wrong
        complaints += [f"round {number}: {line}" for line in wrong]
        print(
            f"{store}: kill {number + 1}/{rounds}, {len(done)} changes acknowledged, {len(expected)} documents, {wrong or 'all there'}",
            file=sys.stderr,
        )
    nursery.close()
    counts = {"kills": rounds, "reopened_whole": good, "changes_acknowledged": acknowledged, "killed_during": dict(under_way)}
    return {**counts, "documents_at_the_end": len(expected), "complaints": complaints[:20]}


def agree(store: str, operations: int, folder: Path) -> dict[str, Any]:
    """Operations on a store and on a dict, until there were so many. A difference is an error that stops it."""
    from tests.search.machine import operate

    done, sequence = 0, 0
    while done < operations:
        place = folder / f"sequence-{sequence}"
        examples, steps = (10, 50) if operations > 1000 else (2, 20)
        done += operate(lambda at: opened(store, at, 8), place, examples, steps, begin=sequence)
        sequence += 1
        print(f"{store}: {done} operations", file=sys.stderr)
    return {"operations": done, "differences": 0}


def damage(store: str, mutations: int, folder: Path) -> dict[str, Any]:
    """Changes one file at a time; then opens the index and reads everything in it."""
    from twofold.search.index import Index, Settings

    draw, place = random.Random(0), folder / "damage"
    index = Index.make(place, Settings("builtin", "f" * 64, {"precision": "fp32"}, WIDTH, 100, 12, store))
    made = index.store
    for number in range(6):
        made.upsert(passages(f"d{number}", 30, digest=str(number)), vectors(30, number, WIDTH), new=True)
    made.upsert(passages("d1", 20, digest="again"), vectors(20, 1, WIDTH))
    made.delete(["d2"])
    made.optimize()
    made.upsert(passages("e", 5), vectors(5, 1, WIDTH), new=True)
    whole = contents(made)
    made.close()
    files = [path for path in sorted(place.rglob("*")) if path.is_file() and path.stat().st_size]
    outcome: Counter[str] = Counter()
    bad: list[str] = []
    for number in range(mutations):
        path = files[number % len(files)]
        content = path.read_bytes()
        path.write_bytes(mutated(content, draw))
        try:
            with Index.open(place) as again:
                same = again.settings == index.settings and contents(again.store) == whole
            outcome["equal" if same else "different"] += 1
            bad += [] if same else [f"{path.name}: opened, and differs"]
        except TwofoldError as error:
            named = str(place) in str(error)
            outcome["refused" if named else "refused without a name"] += 1
            bad += [] if named else [f"{path.name}: {error}"]
        for extra in set(place.rglob("*")) - set(files):
            if extra.is_file() and ".torn" in extra.name:
                extra.unlink()
        path.write_bytes(content)
    return {"mutations": mutations, "files": len(files), **outcome, "complaints": bad[:20]}


def contents(store: Store) -> Any:
    """All that a store holds and finds, as JSON."""
    rows = store.get([f"{name}#{n}" for name in sorted(store.documents()) for n in range(30)])
    query_D = np.ones(WIDTH, np.float32) / np.sqrt(np.float32(WIDTH))
    found = [(match.passage.id, round(match.score, 5)) for match in store.search(query_D, 200)]
    words = sorted((match.passage.id, round(match.score, 4)) for match in store.lexical("red fox", 200))
    return [[repr(row) for row in rows], found, words, store.count()]


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content with something wrong."""
    size, data = len(content), bytearray(content)
    at = draw.randrange(size)
    kind = draw.choice(["flip", "flip", "truncate", "zero", "swap"])
    if kind == "truncate":
        return bytes(data[:at])
    if kind == "zero":
        length = min(draw.randint(1, 64), size - at)
        data[at : at + length] = bytes(length)
    elif kind == "swap":
        other = draw.randrange(size)
        data[at], data[other] = data[other], data[at]
    if bytes(data) == content:
        data[at] ^= 1 << draw.randrange(8)
    return bytes(data)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["--nursery"]:
        nursery(arguments[1])
        return {}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, help="also write the result here: results/bench/index_kill.json")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds that a writer lives at most (default %(default)s)")
    parser.add_argument("--operations", type=int, default=20_000)
    parser.add_argument("--mutations", type=int, default=3_000)
    parser.add_argument("--store", default="lancedb")
    parser.add_argument("--only", action="append", default=[], choices=PARTS, help="this part; the others stay as they are in --to")
    parser.add_argument("--quick", action="store_true", help="a few of each, to see that it runs")
    chosen = parser.parse_args(arguments)
    kills, operations, mutations = (2, 40, 20) if chosen.quick else (chosen.kills, chosen.operations, chosen.mutations)
    there = json.loads(chosen.to.read_text(encoding="utf-8")) if chosen.to is not None and chosen.to.is_file() else {}
    found: dict[str, Any] = {name: there[name] for name in PARTS if name in there and name not in chosen.only} if chosen.only else {}
    with tempfile.TemporaryDirectory(prefix="index-kill-") as temporary:
        folder = Path(temporary)
        parts = {
            "kills": lambda: kill(chosen.store, kills, chosen.longest, folder),
            "damage": lambda: damage(chosen.store, mutations, folder),
            "against_a_dict": lambda: agree(chosen.store, operations, folder),
        }
        for name in chosen.only or PARTS:
            found[name] = parts[name]()
            content = told(found, chosen)
    print(json.dumps(content, indent=2, ensure_ascii=False))
    return content


def told(found: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """The result so far, written after every part, since all of them take a while; the scoreboard reads what has all parts."""
    settings = {"longest": chosen.longest, "quick": chosen.quick}
    scores: list[tuple[str, Any]] = []
    if set(PARTS) <= found.keys() and not chosen.quick:
        share = found["kills"]["reopened_whole"] / found["kills"]["kills"]
        scores.append(("T4", {"reopened": share, "differences": found["against_a_dict"]["differences"]}))
    return report("index_kill", __doc__, scores, chosen.to, store=chosen.store, **found, settings=settings)


if __name__ == "__main__":
    main()
