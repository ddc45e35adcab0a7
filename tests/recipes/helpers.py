"""Two shells that stand for the two hosts of a recipe, and what the machine must have for it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.helpers import PATIENCE_S, eventually
from tests.e2e.ssh import free_port
from tests.recipes.book import ROOT, Recipe

_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"  # where servers are, which only root has in PATH
_NOISE = re.compile(r"Traceback|Exception ignored|a bug; please report")
Prefix = tuple[str, ...]


def search_path() -> str:
    """PATH, with what is beside the interpreter before it and the folders of servers behind it."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:{_SYSTEM_FOLDERS}"


def missing(**programs: str) -> str:
    """'needs PACKAGE (PROGRAM)' for the programs that are not here, given as program=package; "" if all are.

    A _ in a program's name stands for a dash.
    """
    lacking = {
        name: package
        for key, package in programs.items()
        if not shutil.which(name := key.replace("_", "-"), path=search_path())
    }
    return "needs " + ", ".join(f"{package} ({name})" for name, package in lacking.items()) if lacking else ""


def needs(reason: str) -> pytest.MarkDecorator:
    """Skips with this reason, if there is one."""
    return pytest.mark.skipif(reason != "", reason=reason)


@dataclass(frozen=True, slots=True)
class Ended:
    """How the shell of a host ended: its exit status, standard output and standard error."""

    status: int
    out: str
    said: str


class Shell:
    """A shell that runs a recipe's text for one host."""

    def __init__(self, name: str, argv: list[str], env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, env=env, start_new_session=True
            )

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self._err.read_text(errors="replace")

    def hear(self, text: str) -> None:
        """Wait until this is on its standard error; it must not end before."""
        eventually(lambda: text in self.said or self._process.poll() is not None, f"{self.name} says {text!r}")
        assert text in self.said, f"{self.name} ended without saying {text!r}:\n{self.said}"

    def signal(self, number: int) -> None:
        """Send it, and all that it runs in its session, a signal."""
        os.killpg(self._process.pid, number)

    def ended(self) -> Ended:
        """Wait for its end."""
        try:
            status = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in {PATIENCE_S} s:\n{self.said}") from None
        assert not _NOISE.search(self.said), self.said
        return Ended(status, self._out.read_text(errors="replace"), self.said)

    def release(self) -> None:
        """Kill what is left of it; the text of a failed test shows what it said."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self._process.wait(PATIENCE_S)


class Hosts:
    """The two hosts of a recipe: one folder, a port, and a PATH in which viamillipede is the one of this checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.source, self.target = folder / "source", folder / "target"
        for each in (self.bin, self.source, self.target):
            each.mkdir()
        self._reserved = free_port()
        self.port = int(self._reserved.getsockname()[1])
        self.prefix: Prefix = ()  # words before each shell, as where it shall run in another mount namespace
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("VIAMILLIPEDE_")}
        self.env |= {"PATH": f"{self.bin}:{search_path()}", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        self.program("viamillipede", f'exec {sys.executable} -m viamillipede "$@"')
        self._shells: list[Shell] = []

    def program(self, name: str, text: str) -> None:
        """Put a shell script of this name before all programs in PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def shell(self, name: str, text: str, **env: str) -> Shell:
        """Run this text, which fails with the first command that fails."""
        shell = Shell(name, [*self.prefix, "bash", "-e", "-c", text], self.env | env, self.folder)
        self._shells.append(shell)
        return shell

    def on(self, text: str, changes: Mapping[str, str]) -> str:
        """The text with this machine's names in the place of those of the recipe; each must occur in it as a word.

        `host` and the port are replaced without being named.
        """
        common = {"host": "127.0.0.1", "8834": str(self.port)}
        for old, new in {**common, **changes}.items():
            pattern = rf"(?<![\w./-]){re.escape(old)}(?![\w-])"
            assert old in common or re.search(pattern, text), f"{old!r} is not in the recipe:\n{text}"
            text = re.sub(pattern, lambda _, new=new: new, text)  # type: ignore[misc]
        return text

    def start(self, recipe: Recipe, receiver: Mapping[str, str], sender: Mapping[str, str]) -> tuple[Shell, Shell]:
        """Both sides of a recipe, under way; the mappings say what stands for the names in either text."""
        rx = self.shell("receiver", self.on(recipe.receiver, receiver))
        return rx, self.shell("sender", self.on(recipe.sender, sender))

    def cook(self, recipe: Recipe, receiver: Mapping[str, str], sender: Mapping[str, str]) -> tuple[Ended, Ended]:
        """Both sides of a recipe, to their end."""
        rx, tx = self.start(recipe, receiver, sender)
        sent = tx.ended()
        return rx.ended(), sent

    def succeed(self, recipe: Recipe, receiver: Mapping[str, str], sender: Mapping[str, str]) -> tuple[Ended, Ended]:
        """The same, and both must exit 0."""
        rx, tx = self.cook(recipe, receiver, sender)
        assert (rx.status, tx.status) == (0, 0), f"--- receiver\n{rx.said}\n--- sender\n{tx.said}"
        return rx, tx

    def call(self, *argv: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, in the same surroundings."""
        return subprocess.run(
            [*self.prefix, *argv], env=self.env | env, cwd=self.folder, check=check, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S,
        )  # fmt: skip

    def close(self) -> None:
        """Everything back."""
        for shell in self._shells:
            shell.release()
        self._reserved.close()


Start = Callable[..., Hosts]
