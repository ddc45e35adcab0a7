"""The house rules, as tests: who may import whom, sizes, names, words, docstrings, scripts.

Each rule is a function from a piece of source to complaints. It is tried on a bad snippet first, which it
must complain about, and then on the whole project, which it must find nothing in.
"""

import ast
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "viamillipede"
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

# The core neither waits nor looks around: time and chance are handed in. What it may import of the project is
# listed; of the standard library, what must not be (mmap may: the ring is anonymous memory, touched page by page).
CORE = f"{PACKAGE}.protocol"
CORE_NEEDS = (CORE, f"{PACKAGE}.errors", f"{PACKAGE}.config")
IMPURE = frozenset(
    "asyncio concurrent datetime fcntl importlib io logging multiprocessing os pathlib psutil random secrets "
    "select selectors signal socket ssl subprocess tempfile threading time uvloop".split()
)

# Modules of viamillipede/aio that no test in tests/aio imports, each with the reason.
UNTESTED_ALONE: dict[str, str] = {}

# Character classes keep this file from matching itself.
FORBIDDEN = (
    (re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|HAC[K])\b"), "finish it, or write the issue that says what is missing"),
    (re.compile(r"\bleg_i[d]\b"), "in the C program that is a piece of the stream; say frame, seq or leg"),
    (re.compile(r"type: ignor[e](?!\[)"), "say which error is ignored"),
    (re.compile(r"\bnoq[a]\b(?!: [A-Z])"), "say which rule is broken"),
    (re.compile(r"(?<![\w.])/(roo[t]|hom[e]|wor[k])/"), "a path of somebody's own machine"),
    (re.compile(r"\b[Ii]ssue #?[0-9]"), "say what it is about; numbers mean nothing to the reader"),
    (re.compile(r"\bpyp[i]\b", re.IGNORECASE), "where packages come from is the user's choice"),
)

# Rules ----------------------------------------------------------------------------------------------------


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported anywhere in `source`, a module of `package`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Name) and node.id == "__import__":
            yield node.lineno, "importlib"


def is_in(name: str, package: str) -> bool:
    """Whether `name` is `package` or something in it."""
    return name == package or name.startswith(package + ".")


def import_complaints(source: str, module: str, package: str) -> Iterator[str]:
    """Against the arrows command line -> shell -> core -> {errors, config}; `package` is that of `module`."""
    for line, name in imports(source, package):
        if is_in(module, CORE):
            if name.partition(".")[0] in IMPURE:
                yield f"{module}:{line}: the core imports {name}, it must be handed in"
            if is_in(name, PACKAGE) and not any(is_in(name, need) for need in CORE_NEEDS):
                yield f"{module}:{line}: the core imports {name}, only {', '.join(CORE_NEEDS)} are its own"
        if module in CORE_NEEDS[1:] and is_in(name, PACKAGE):
            yield f"{module}:{line}: imports {name}, but everything rests on {module}"
        if is_in(name, f"{PACKAGE}.cli") and is_in(module, PACKAGE) and module != f"{PACKAGE}.__main__":
            yield f"{module}:{line}: imports {name}, which only __main__ may"


def size_complaints(source: str) -> Iterator[str]:
    """Against files that nobody reads to the end and functions that do not fit a screen."""
    if (lines := len(source.splitlines())) > FILE_LINES_MAX:
        yield f"{lines} lines, at most {FILE_LINES_MAX}: split it"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"line {node.lineno}: {node.name}() has {lines} lines, at most {FUNCTION_LINES_MAX}"


def docstring_complaints(source: str) -> Iterator[str]:
    """Against modules, public classes, and public functions and methods without a word of explanation."""

    def visit(node: ast.Module | ast.ClassDef) -> Iterator[str]:
        for child in node.body:
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if child.name.startswith("_") or is_variant(child):
                continue
            if not ast.get_docstring(child):
                yield f"line {child.lineno}: {child.name} has no docstring"
            if isinstance(child, ast.ClassDef):
                yield from visit(child)

    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield "line 1: the module has no docstring"
    yield from visit(tree)


def is_variant(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether this is an overload or a setter, whose docstring stands elsewhere."""
    return any(ast.unparse(decorator).endswith(("overload", ".setter")) for decorator in node.decorator_list)


def word_complaints(text: str) -> Iterator[str]:
    """Against words that do not belong into what is handed out."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, reason in FORBIDDEN:
            if match := pattern.search(line):
                yield f"line {number}: {match[0]!r}: {reason}"


def mirror_complaints(modules: set[str], tests: set[str]) -> Iterator[str]:
    """Against modules X of the core without tests/protocol/test_X.py."""
    yield from (f"protocol/{name}.py has no tests/protocol/test_{name}.py" for name in sorted(modules - tests))


def shell_complaints(modules: set[str], tested: set[str], exempt: dict[str, str]) -> Iterator[str]:
    """Against modules of the shell that no test in tests/aio names, and against exemptions without need or reason."""
    yield from (f"no test in tests/aio names aio/{name}.py" for name in sorted(modules - tested - exempt.keys()))
    yield from (f"aio/{name}.py is exempt, but there is no need" for name in sorted(exempt.keys() & tested))
    yield from (f"aio/{name}.py is exempt, but does not exist" for name in sorted(exempt.keys() - modules))
    yield from (f"aio/{name}.py is exempt without a reason" for name, reason in exempt.items() if not reason.strip())


def script_complaints(path: Path) -> Iterator[str]:
    """Against a script that cannot be started, or whose shell cannot read it. lib.sh is only sourced."""
    text = path.read_text()
    first = text.partition("\n")[0]
    if path.suffix == "":
        if not os.access(path, os.X_OK):
            yield f"{path.name} is not executable"
        if not first.startswith("#!/"):
            yield f"{path.name} does not say by what it is run: {first!r}"
    if "python" in first:
        compile(text, path, "exec")
        return
    shell = "bash" if "bash" in first else "sh"
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True)
    if done.returncode != 0:
        yield f"{path.name}: {shell} -n: {done.stderr.strip()}"


# What they are applied to -----------------------------------------------------------------------------------


def scripts() -> list[Path]:
    """Everything in scripts/ and .ci/ that is not a Python module."""
    found = [path for folder in ("scripts", ".ci") for path in (ROOT / folder).iterdir() if path.is_file()]
    return sorted(path for path in found if path.suffix != ".py")


def python_files(*folders: str) -> list[Path]:
    """Every Python file below these folders, also scripts without a suffix that are run by Python."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(found + [path for path in scripts() if "scripts" in folders and is_python(path)])


def is_python(script: Path) -> bool:
    """Whether its first line names Python."""
    return "python" in script.read_text().partition("\n")[0]


def text_files() -> list[Path]:
    """Every text file that is handed out."""
    top = [path for path in ROOT.iterdir() if path.suffix in (".md", ".cfg", ".toml") or path.name == "LICENSE"]
    manuals = [path for path in (ROOT / "man").iterdir() if path.is_file()]
    return sorted({*top, *manuals, *scripts(), *python_files(PACKAGE, "tests", "scripts")})


def module_of(path: Path) -> tuple[str, str]:
    """A file's dotted name, and that of the package it is in."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    package = ".".join(parts[:-1])
    return (package if parts[-1] == "__init__" else ".".join(parts)), package


def names_in(folder: str, pattern: str = "*.py") -> set[str]:
    """The modules of a folder, but not __init__."""
    return {path.stem for path in (ROOT / folder).glob(pattern)} - {"__init__"}


def everywhere(paths: list[Path], rule: Callable[[str], Iterator[str]]) -> list[str]:
    """What `rule` says about each of these files."""
    assert paths, "there is nothing to look at: did a folder move?"
    return [f"{path.relative_to(ROOT)}: {said}" for path in paths for said in rule(path.read_text())]


# The project keeps the rules --------------------------------------------------------------------------------


def nothing(complaints: Iterable[str]) -> None:
    """Fail with all of them, one a line."""
    if found := list(complaints):
        pytest.fail("\n".join(found), pytrace=False)


def test_the_arrows_of_import_point_one_way() -> None:
    found = [said for path in python_files(PACKAGE) for said in import_complaints(path.read_text(), *module_of(path))]
    nothing(found)


def test_files_and_functions_are_short() -> None:
    nothing(everywhere(python_files(PACKAGE, "tests", "scripts"), size_complaints))


def test_what_is_public_has_a_docstring() -> None:
    nothing(everywhere(python_files(PACKAGE), docstring_complaints))


def test_no_forbidden_word() -> None:
    nothing(everywhere(text_files(), word_complaints))


def test_each_module_of_the_core_has_its_test_file() -> None:
    tests = {name.removeprefix("test_") for name in names_in("tests/protocol", "test_*.py")}
    modules = names_in(f"{PACKAGE}/protocol")
    assert modules
    nothing(mirror_complaints(modules, tests))


def test_each_module_of_the_shell_is_named_by_a_test() -> None:
    tested = {name.removeprefix("test_") for name in names_in("tests/aio", "test_*.py")}
    for path in (ROOT / "tests/aio").glob("test_*.py"):
        for _, name in imports(path.read_text(), "tests.aio"):
            if is_in(name, f"{PACKAGE}.aio") and name.count(".") >= 2:
                tested.add(name.split(".")[2])
    modules = names_in(f"{PACKAGE}/aio")
    assert modules
    nothing(shell_complaints(modules, tested, UNTESTED_ALONE))


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_scripts_can_be_run(path: Path) -> None:
    nothing(script_complaints(path))


# The rules bite ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        *((f"{CORE}.frame", f"import {name}") for name in sorted(IMPURE)),
        (f"{CORE}.frame", "import os.path"),
        (f"{CORE}.frame", "from time import monotonic_ns"),
        (f"{CORE}.frame", "def late() -> None:\n    import random"),
        (f"{CORE}.frame", "__import__('time')"),
        (f"{CORE}.frame", "from viamillipede.aio import leg"),
        (f"{CORE}.frame", "from viamillipede import aio"),
        (f"{CORE}.frame", "from ..aio.leg import Leg"),
        (f"{CORE}.frame", "from .. import aio"),
        (f"{CORE}.frame", "import viamillipede.cli"),
        (f"{PACKAGE}.config", "from viamillipede.protocol import frame"),
        (f"{PACKAGE}.errors", "from viamillipede import config"),
        (f"{PACKAGE}.aio.tx", "from viamillipede.cli import main"),
        (f"{PACKAGE}.aio.tx", "from ..cli import main"),
        (f"{PACKAGE}.aio.tx", "from viamillipede import cli"),
    ],
)
def test_an_import_against_the_arrow_is_noticed(module: str, source: str) -> None:
    assert list(import_complaints(source, module, module.rpartition(".")[0]))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (f"{CORE}.frame", "import struct, xxhash\nfrom dataclasses import dataclass"),
        (f"{CORE}.frame", "from viamillipede.errors import FrameError\nfrom . import rangeset\nfrom .. import config"),
        (f"{PACKAGE}.aio.tx", "import asyncio, socket\nfrom viamillipede.protocol import frame"),
        (f"{PACKAGE}.__main__", "from viamillipede.cli import main"),
        (f"{PACKAGE}.aio.tx", "from viamillipede import client"),
    ],
)
def test_an_import_along_the_arrow_is_allowed(module: str, source: str) -> None:
    assert list(import_complaints(source, module, module.rpartition(".")[0])) == []


def test_a_long_file_and_a_long_function_are_noticed() -> None:
    assert not list(size_complaints("pass\n" * FILE_LINES_MAX))
    assert list(size_complaints("pass\n" * (FILE_LINES_MAX + 1)))
    body = "    pass\n" * (FUNCTION_LINES_MAX - 1)
    assert not list(size_complaints("def f():\n" + body))
    for head in ("def f():\n", "async def f():\n"):
        assert list(size_complaints(head + body + "    pass\n"))


@pytest.mark.parametrize(
    "source",
    [
        "x = 1",
        '"""M."""\nclass A: ...',
        '"""M."""\ndef f(): ...',
        '"""M."""\nasync def f(): ...',
        '"""M."""\nclass A:\n    """A."""\n    def f(self): ...',
        '"""M."""\nclass A:\n    """A."""\n    @property\n    def f(self): ...',
    ],
)
def test_a_missing_docstring_is_noticed(source: str) -> None:
    assert len(list(docstring_complaints(source))) == 1


def test_what_is_private_needs_no_docstring() -> None:
    source = (
        '"""M."""\ndef _f(): ...\nclass _A:\n    def f(self): ...\nclass B:\n    """B."""\n    def __len__(self): ...'
    )
    assert list(docstring_complaints(source)) == []


@pytest.mark.parametrize(
    "line",
    "TO.DO: more|FIX.ME|XX.X|a HAC.K|leg_.id = 3|x  # type: ig.nore|x  # no.qa|see /ro.ot/x|in /ho.me/me/x"
    "|cd /wo.rk/main|fixes is.sue 2|is.sue #17|from Py.PI".split("|"),
)
def test_a_forbidden_word_is_noticed(line: str) -> None:
    assert len(list(word_complaints("fine\n" + line.replace(".", "")))) == 1


@pytest.mark.parametrize(
    "line", ["x  # type: ig.nore[arg-type]", "x  # no.qa: B008", "see work/x", "an issue of 3 pages"]
)
def test_a_similar_word_is_allowed(line: str) -> None:
    assert list(word_complaints(line.replace(".", ""))) == []


def test_a_module_without_test_is_noticed() -> None:
    assert list(mirror_complaints({"frame", "rtt"}, {"rtt", "other"})) == [
        "protocol/frame.py has no tests/protocol/test_frame.py"
    ]
    assert len(list(shell_complaints({"leg"}, set(), {}))) == 1
    assert len(list(shell_complaints({"leg"}, {"leg"}, {"leg": "is tested"}))) == 1
    assert len(list(shell_complaints({"leg"}, set(), {"leg": " "}))) == 1
    assert len(list(shell_complaints({"leg"}, {"leg"}, {"gone": "was here once"}))) == 1
    assert not list(shell_complaints({"leg", "tx"}, {"leg"}, {"tx": "is run by every test of tests/e2e"}))


@pytest.mark.parametrize(
    ("text", "mode"),
    [("#!/bin/sh\nif", 0o755), ("#!/bin/bash\nfi", 0o755), ("#!/bin/sh\ntrue\n", 0o644), ("true\n", 0o755)],
)
def test_a_script_that_does_not_run_is_noticed(tmp_path: Path, text: str, mode: int) -> None:
    path = tmp_path / "script"
    path.write_text(text)
    path.chmod(mode)
    assert len(list(script_complaints(path))) == 1
