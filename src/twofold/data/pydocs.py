"""The built-in dataset: docstrings and the code they describe, from the standard library of the Python that runs.

The query is the first sentence of a function's docstring, the document its signature and body without the docstring. Nothing is
downloaded, so the first command of a new user needs no network; the text is English prose against code, hence not easy.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import re
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from twofold.cache import cache_root, made_once
from twofold.data.beir import write_folder
from twofold.data.splits import bucket, normalised
from twofold.errors import DataError
from twofold.records import Document, Query

_LEFT_OUT = frozenset({"test", "tests", "site-packages", "dist-packages", "__pycache__"})
_SENTENCE = re.compile(r"(.+?[.!?])(?=\s|$)")
_MIN_WORDS = 2

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class Pair(NamedTuple):
    """One function: `module:qualified.name`, the first sentence of its docstring, its code without the docstring."""

    id: str
    query: str
    code: str


def pydocs_folder() -> Path:
    """The dataset as a BEIR folder in the cache, made on first use; one per Python version and per version of these rules."""
    rules = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    return made_once(cache_root() / f"pydocs-{platform.python_version()}-{rules}", _write)


def _write(folder: Path) -> None:
    """Functions that say the same are one query with several relevant documents; its id, hence its split, is the first one's."""
    pairs = list(stdlib_pairs(Path(sysconfig.get_paths()["stdlib"])))
    if not pairs:
        raise DataError("pydocs: this Python has no sources of its standard library; use another dataset")
    queries: dict[str, Query] = {}
    judged: dict[str, list[tuple[str, str, int]]] = {"train": [], "dev": [], "test": []}
    for pair in pairs:
        query = queries.setdefault(normalised(pair.query), Query(f"q:{pair.id}", pair.query))
        split = {0: "dev", 1: "test"}.get(bucket(query.id.removeprefix("q:")), "train")
        judged[split].append((query.id, pair.id, 1))
    write_folder(folder, (Document(pair.id, "", pair.code) for pair in pairs), queries.values(), judged)


def stdlib_pairs(root: Path) -> Iterator[Pair]:
    """The pairs of all modules under `root` but tests and installed packages, by path and then by place in the file.

    Dropped are first sentences of one word, functions that are nothing but a docstring, and whatever repeats an id or a code seen before.
    """
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        relative = path.relative_to(root)
        if _LEFT_OUT.isdisjoint(relative.parts):
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            for pair in _module_pairs(path, module):
                if seen.isdisjoint((pair.id, pair.code)):
                    yield pair
                seen.update((pair.id, pair.code))


def _module_pairs(path: Path, module: str) -> Iterator[Pair]:
    try:
        with tokenize.open(path) as file:  # honours the file's declared encoding
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in docstrings are not ours to report
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return  # templates and deliberately broken files
    lines = source.split("\n")  # not splitlines: a form feed ends no line for ast
    for name, function in _functions(tree, ""):
        query, code = first_sentence(ast.get_docstring(function) or ""), _code(function, lines)
        if len(query.split()) >= _MIN_WORDS and code:
            yield Pair(f"{module}:{name}", query, code)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + child.name, child
        name = f"{prefix}{child.name}." if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else prefix
        yield from _functions(child, name)


def first_sentence(docstring: str) -> str:
    """The first sentence of the first paragraph, on one line."""
    paragraph = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    match = _SENTENCE.match(paragraph)
    return match[1] if match else paragraph


def _code(function: _Function, lines: list[str]) -> str:
    """Signature and body without decorators and docstring; nothing where the docstring is all there is."""
    docstring = function.body[0]
    signature = lines[function.lineno - 1 : docstring.lineno - 1]
    body = lines[docstring.end_lineno or 0 : function.end_lineno]
    if not signature or not "".join(body).strip():
        return ""
    return textwrap.dedent("\n".join([*signature, *body])).strip()
