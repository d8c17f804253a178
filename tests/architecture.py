"""The rules of the house, read from the source with ast alone. Each rule takes a tree and yields one line per complaint."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeGuard

PACKAGE = "twofold"
LAYERS = (
    "errors nearest records",
    "complaints prompts toml",
    "cache core losses config plugins provenance",
    "backbone banks routers data ranking",
    "tasks checkpoint",
    "model",
    "mining methods",
    "evaluate",
    "train",
    "search probes",
    "demo doctor serve study integrations",
    "cli",
)
"""From the ground up. A part imports from the rows below its own, never from its own row."""

FAMILIES = ("banks", "routers", "tasks", "methods", "probes", "search.stores", "search.formats")
"""Folders of plug-ins: a file imports nothing of its folder but the `__init__` and files that begin with `_`."""

HARD_LIMIT, SOFT_LIMIT, FUNCTION_LIMIT, CORE_LIMIT = 400, 300, 50, 500
DRAWERS = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PRINTERS = {"cli", "demo"}


@dataclass(frozen=True)
class Import:
    """One name imported, by the whole dotted name of the module it comes from."""

    module: str
    line: int
    at_load: bool
    """Whether it runs when the importing module is loaded (not inside a function, not for the type checker only)."""


@dataclass(frozen=True)
class Module:
    """One source file. `name` is its dotted name below the package ("" for the package itself)."""

    name: str
    path: Path
    is_package: bool

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def part(self) -> str:
        """The first word of the name: what stands in LAYERS."""
        return self.name.partition(".")[0]

    @property
    def parent(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def is_docstring_only(self) -> bool:
        body = [node for node in self.tree.body if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")]
        return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


@dataclass(frozen=True)
class Tree:
    """A repository."""

    root: Path

    @property
    def package(self) -> Path:
        return self.root / "src" / PACKAGE

    @cached_property
    def modules(self) -> dict[str, Module]:
        found = {}
        for path in sorted(self.package.rglob("*.py")):
            parts = path.relative_to(self.package).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = Module(name, path, is_package)
        return found

    def where(self, module: Module, line: int = 0) -> str:
        return f"{module.path.relative_to(self.root).as_posix()}{f':{line}' if line else ''}"

    def imports(self, module: Module) -> list[Import]:
        """Everything that a module imports; `from package import module` counts as that module."""
        found: list[Import] = []
        self._collect(module.tree, True, found)
        return found

    def own_imports(self, module: Module) -> list[tuple[Module, Import]]:
        """The imports that are modules of the package."""
        names = ((each, each.module.removeprefix(PACKAGE).removeprefix(".")) for each in self.imports(module) if is_own(each.module))
        return [(self.modules[name], each) for each, name in names if name in self.modules]

    def _collect(self, node: ast.AST, at_load: bool, found: list[Import]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found += [Import(alias.name, child.lineno, at_load) for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                base = "." * child.level + (child.module or "")
                for alias in child.names:
                    whole = f"{base}.{alias.name}"
                    found.append(Import(whole if whole.removeprefix(f"{PACKAGE}.") in self.modules else base, child.lineno, at_load))
            else:
                for_checker = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                deferred = for_checker or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                self._collect(child, at_load and not deferred, found)


def is_own(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def rank(part: str) -> int | None:
    """The row of a part; None where it has none. The package's own `__init__` and `__main__` stand above all."""
    if part in ("", "__main__"):
        return len(LAYERS)
    return next((row for row, parts in enumerate(LAYERS) if part in parts.split()), None)


def layers(tree: Tree) -> Iterator[str]:
    """A part imports only from rows below its own (inside functions and for the type checker too)."""
    for module in tree.modules.values():
        own = rank(module.part)
        if own is None:
            yield f"{tree.where(module)}: {module.part!r} has no row in LAYERS"
            continue
        for target, each in tree.own_imports(module):
            other = rank(target.part)
            if other is not None and target.part != module.part and other >= own:
                yield f"{tree.where(module, each.line)}: {module.part} imports {target.name or PACKAGE}, which is not below it"


def plugin_siblings(tree: Tree) -> Iterator[str]:
    """A plug-in never imports its sibling, and the folder's `__init__` imports none: the folder is the list."""
    for module in tree.modules.values():
        family = next((family for family in FAMILIES if module.parent == family), None)
        if family is None:
            continue
        for target, each in tree.own_imports(module):
            if target.parent == family and not target.is_package and not target.name.rpartition(".")[2].startswith("_"):
                yield f"{tree.where(module, each.line)}: a file of {family} imports its sibling {target.name}"


def cycles(tree: Tree) -> Iterator[str]:
    """No module needs, while it is loaded, a module that needs it. Loading a module loads the packages around it too."""
    graph: dict[str, set[str]] = {}
    for module in tree.modules.values():
        needed = graph.setdefault(module.name, set())
        for target, each in tree.own_imports(module):
            if each.at_load:
                parts = target.name.split(".")
                around = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
                needed |= {name for name in around if name != module.name and not module.name.startswith(f"{name}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"import cycle: {' → '.join(error.args[1])}"


def core_is_small_and_pure(tree: Tree) -> Iterator[str]:
    """core/, banks/ and routers/ import torch, the standard library and core; the core with one bank and one router is short."""
    for module in tree.modules.values():
        if module.part in ("core", "banks", "routers"):
            for each in tree.imports(module):
                top = each.module.partition(".")[0]
                allowed = top in sys.stdlib_module_names or top == "torch"
                family = f"{PACKAGE}.{module.part}"
                if not allowed and not f"{each.module}.".startswith((f"{PACKAGE}.core.", f"{family}.")):
                    yield f"{tree.where(module, each.line)}: {module.part}/ imports {each.module}; only torch and {PACKAGE}.core"
    counted = {
        name: module.lines for name, module in tree.modules.items() if module.part == "core" or name in ("banks.lora", "routers.soft")
    }
    if sum(counted.values()) >= CORE_LIMIT:
        yield f"the core has {sum(counted.values())} lines, and {CORE_LIMIT} is the limit: {counted}"


def file_sizes(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        if module.lines >= HARD_LIMIT:
            yield f"{tree.where(module)}: {module.lines} lines; split it ({HARD_LIMIT} is the limit, {SOFT_LIMIT} the aim)"


def long_files(tree: Tree) -> Iterator[str]:
    """Not wrong yet."""
    for module in tree.modules.values():
        if SOFT_LIMIT <= module.lines < HARD_LIMIT:
            yield f"{tree.where(module)}: {module.lines} lines; the aim is under {SOFT_LIMIT}"


def function_sizes(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                length = node.end_lineno - node.lineno + 1
                if length >= FUNCTION_LIMIT:
                    yield f"{tree.where(module, node.lineno)}: {node.name} has {length} lines; {FUNCTION_LIMIT} is the limit"


def names(tree: Tree) -> Iterator[str]:
    for module in tree.modules.values():
        for word in DRAWERS & set(re.split(r"[._]", module.name)):
            yield f"{tree.where(module)}: {word!r} says nothing of what is inside"


def tests_mirror(tree: Tree) -> Iterator[str]:
    """Every module has its test file at the same place below tests/."""
    for module in tree.modules.values():
        if module.is_docstring_only:
            continue
        folder = (tree.root / "tests").joinpath(*module.parent.split(".")) if module.parent else tree.root / "tests"
        test = folder / f"test_{module.path.stem.strip('_')}.py"
        if not test.is_file():
            yield f"{tree.where(module)}: has no {test.relative_to(tree.root).as_posix()}"


def forbidden(tree: Tree) -> Iterator[str]:
    """No unpickling, no foreign code, no printing outside the command line."""
    for module in tree.modules.values():
        for each in tree.imports(module):
            if each.module.partition(".")[0] in PICKLES:
                yield f"{tree.where(module, each.line)}: imports {each.module}; safetensors and JSON hold no code"
        for node in ast.walk(module.tree):
            if loads_pickles(node):
                yield f"{tree.where(module, node.lineno)}: torch.load unpickles; use checkpoint.load_tensors"
            elif isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False":
                yield f"{tree.where(module, node.value.lineno)}: trust_remote_code runs a stranger's code"
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and module.part not in PRINTERS:
                yield f"{tree.where(module, node.lineno)}: prints; only {' and '.join(sorted(PRINTERS))} do"


def loads_pickles(node: ast.AST) -> TypeGuard[ast.Attribute | ast.ImportFrom]:
    """Whether this is `torch.load`, or imports it by name."""
    if isinstance(node, ast.Attribute):
        return node.attr == "load" and ast.unparse(node.value) == "torch"
    return isinstance(node, ast.ImportFrom) and node.module == "torch" and any(alias.name == "load" for alias in node.names)


def readme_layout(tree: Tree) -> Iterator[str]:
    """README's block below `## Layout`, one line `path — what` per file below src/twofold, is the disk: both ways.

    Paths are relative to src/twofold or to the root; those that end with `/` are folders.
    """
    readme = (tree.root / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^## Layout\n(?:(?!## |```).*\n)*```\w*\n((?:(?!```).*\n)*)```", readme, re.MULTILINE)
    if block is None:
        yield "README.md: no fenced block below the heading '## Layout'"
        return
    listed = set()
    for line in block[1].splitlines():
        if not line.strip():
            continue
        name, dash, what = line.strip().partition(" — ")
        name = name.strip().removeprefix(f"src/{PACKAGE}/")
        if not dash or not what.strip():
            yield f"README.md: {line.strip()!r} is not of the form `path — what`"
        if name in listed:
            yield f"README.md: {name} is listed twice"
        listed.add(name)
        exists = any((base / name).is_dir() if name.endswith("/") else (base / name).is_file() for base in (tree.package, tree.root))
        if not exists:
            yield f"README.md: {name} is listed and does not exist"
    for module in tree.modules.values():
        name = module.path.relative_to(tree.package).as_posix()
        if name not in listed and not (module.is_package and module.is_docstring_only):
            yield f"README.md: {name} exists and is not listed"


RULES = (layers, plugin_siblings, cycles, core_is_small_and_pure, file_sizes, function_sizes, names, tests_mirror, forbidden)
"""All but README's, which waits for the README."""
