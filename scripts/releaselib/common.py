"""What all steps share: trouble, running a tool, when it is, what the product is called."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
NAME = "viamillipede"
STEP_S = 600  # how long a step may take, with a slow network


class Trouble(Exception):
    """What went wrong, in words for the user."""


@dataclass(frozen=True, slots=True)
class Release:
    """What is built: its version, the time that all in it has (seconds since 1970), and the folder for scraps."""

    version: str
    epoch: int
    work: Path

    @property
    def environment(self) -> dict[str, str]:
        """For tools: times that are always the same, and versions that are pinned."""
        return {**os.environ, "SOURCE_DATE_EPOCH": str(self.epoch), "PIP_CONSTRAINT": str(CONSTRAINTS)}


def describe(work: Path) -> Release:
    """The release that the checkout would be now. Raises Trouble."""
    text = (ROOT / NAME / "__init__.py").read_text()
    version = re.search(r'^__version__ = "([0-9][0-9a-z.+]*)"$', text, re.MULTILINE)
    if version is None:
        raise Trouble(f"{NAME}/__init__.py does not say a version")
    said = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
    if not said.isdecimal():
        raise Trouble(f"SOURCE_DATE_EPOCH={said!r} is no number of seconds")
    return Release(version[1], int(said), work)


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """What a tool writes on its standard output. Trouble, with all it wrote, when it fails or is not there."""
    # Our own modules are not for them: scripts/venv.py is not what others mean by `venv`.
    environment = {name: value for name, value in (env or os.environ).items() if name != "PYTHONPATH"}
    options: dict[str, Any] = {"text": True, "errors": "replace", "timeout": STEP_S, "cwd": cwd, "env": environment}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, **options)
    except FileNotFoundError as error:
        raise Trouble(f"needs {command[0]}, which is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Trouble(f"{shown(command)}: not ready after {STEP_S} s") from error
    if done.returncode != 0:
        raise Trouble(f"{shown(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return str(done.stdout)


def shown(command: Sequence[str | Path]) -> str:
    """A command as a person would write it."""
    return " ".join(str(word) for word in command)


def python_version() -> str:
    """Of the Python that builds, for which libraries are compiled: 3.11."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def library_suffix() -> str:
    """What names of compiled libraries end in, which tells Python, its version, machine and C library."""
    return EXTENSION_SUFFIXES[0]
