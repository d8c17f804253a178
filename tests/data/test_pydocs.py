from __future__ import annotations

import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from twofold.data.pydocs import first_sentence, stdlib_pairs
from twofold.data.sources import open_dataset

MODULE = '''
class Stack:
    """Not a function."""

    @property
    def top(self):
        """Return the last item pushed.  It stays.

        More words.
        """
        # the end of the list
        return self.items[-1]

    async def drain(
        self,
        limit=3,
    ):
        "Yield items until none is left"
        while self.items:
            yield self.items.pop()

def outer(x):
    """Do it"""
    def inner(y):
        """Return y squared, exactly."""
        return y * y
    return inner(x)

def empty():
    """Nothing but a docstring here."""

def short():
    """Short."""
    return 1

def copied(y): """Return what is on one line."""; return y
'''


def test_functions_become_pairs(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("\f\n" + MODULE)
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "tests.py").write_text(MODULE)
    (tmp_path / "twin.py").write_text("class Other:\n    def inner(y):\n        '''The same code again.'''\n        return y * y\n")
    pairs = {pair.id: pair for pair in stdlib_pairs(tmp_path)}
    assert list(pairs) == ["pack:Stack.top", "pack:Stack.drain", "pack:outer", "pack:outer.inner"]
    top = pairs["pack:Stack.top"]
    assert top.query == "Return the last item pushed."
    assert top.code == "def top(self):\n    # the end of the list\n    return self.items[-1]"
    assert pairs["pack:Stack.drain"].query == "Yield items until none is left"
    assert pairs["pack:Stack.drain"].code.startswith("async def drain(\n    self,\n    limit=3,\n):\n    while")


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("One. Two.", "One."),
        ("Open file.txt for\n    reading.\n\n    More.", "Open file.txt for reading."),
        ("No full stop\n\nOther paragraph.", "No full stop"),
        ("Is it? Yes.", "Is it?"),
        ("", ""),
    ],
)
def test_the_first_sentence(docstring: str, sentence: str) -> None:
    assert first_sentence(docstring) == sentence


def test_the_built_in_dataset(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset("pydocs")
    assert dataset.name == "pydocs"
    assert dataset.splits == ("train", "dev", "test")
    judgements = sum(len(grades) for split in dataset.splits for grades in dataset.qrels(split).values())
    assert judgements == len(dataset.corpus) > 5000
    assert dataset.skipped == {}
    folders = [path.name for path in cache_dir.iterdir()]
    assert len(folders) == 1
    assert folders[0].startswith("pydocs-3.")
    monkeypatch.setattr("twofold.data.pydocs.stdlib_pairs", lambda root: pytest.fail("made twice"))
    assert open_dataset("pydocs").fingerprint == dataset.fingerprint
    small = dataset.subset(documents=600, queries=300)
    assert len(small.corpus) == 600
    assert Counter(len(small.qrels(split)) > 10 for split in small.splits) == {True: 3}


def test_the_library_is_read_in_the_same_order_twice() -> None:
    root = Path(sysconfig.get_paths()["stdlib"]) / "json"
    assert list(stdlib_pairs(root)) == list(stdlib_pairs(root)) != []
