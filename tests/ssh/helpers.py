"""A host to reach through ssh, and near ends that do."""

import contextlib
import fcntl
import json
import os
import pwd
import shlex
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.commands import lives
from tests.e2e.helpers import LOOPBACK, ROOT, Side, eventually
from tests.e2e.ssh import Sshd

ENDS_WITHIN_S = 40
QUIET = {"IdentitiesOnly": "yes", "IdentityAgent": "none", "StrictHostKeyChecking": "no", "LogLevel": "ERROR",
         "UserKnownHostsFile": "/dev/null", "GlobalKnownHostsFile": "/dev/null"}  # fmt: skip
BUSY = 'echo $PPID >"$1/far"; echo $$ >"$1/command"; cat >>"$1/data"; : >"$1/eof"'


class Host:
    """What stands on the other side. `folder`: private, for marks; `ssh`: how it is reached; `program`: over there."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.folder, self.port = folder, sshd.port
        self.dest = f"{pwd.getpwuid(os.geteuid()).pw_name}@{LOOPBACK}"
        self.program = self.script("viamillipede", f'PYTHONPATH={ROOT} exec {sys.executable} -m viamillipede "$@"')
        self.ssh = self.how()

    def script(self, name: str, text: str) -> str:
        """An executable file."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def how(self, **options: object) -> str:
        """An ssh command with these options besides those that it needs."""
        files = {"IdentityFile": str(self.folder / "client"), "Port": self.port}
        words = [f"-o{name}={value}" for name, value in {**QUIET, **files, **options}.items()]
        return shlex.join(["ssh", "-F", "none", *words])

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def number(self, name: str) -> int:
        """What a command has written there, once it has."""
        eventually(lambda: self[name].exists() and self[name].read_text().endswith("\n"), f"the mark {name}")
        return int(self[name].read_text())

    def busy(self) -> tuple[object, ...]:
        """A command that leaves the pids of the far end and its own, and takes what comes."""
        return ("--", "sh", "-c", BUSY, "sh", self.folder)


class Ends:
    """Near ends of a test, which end with it."""

    def __init__(self, host: Host) -> None:
        self._host, self._sides = host, list[Side]()

    def near(self, verb: str, *words: object, dest: str = "", stdin: Any = None, **changes: str) -> Side:
        """`viamillipede VERB DEST` with what is needed to get there; `changes`: ssh, program; "": not said."""
        host = self._host
        said = {"ssh-command": changes.get("ssh", host.ssh), "far-command": changes.get("program", host.program)}
        own = [each for word, text in said.items() if text for each in (word, text)]
        stdin = stdin if stdin is not None else subprocess.PIPE if verb == "to" else subprocess.DEVNULL
        stdout = subprocess.DEVNULL if verb == "to" else subprocess.PIPE
        side = Side(verb, [verb, dest or host.dest, *own, *words], stdin, stdout, None, [])
        self._sides.append(side)
        return side

    def raw(self, *words: object) -> Side:
        """`viamillipede WORDS`."""
        side = Side(str(words[0]), words, subprocess.PIPE, subprocess.PIPE, None, [])
        self._sides.append(side)
        return side

    def release(self) -> None:
        """All of them end."""
        for side in self._sides:
            side.release()


class Processes:
    """Everything that takes part in a transfer that is going on: here, and over there."""

    def __init__(self, near: Side, host: Host) -> None:
        self.far = psutil.Process(host.number("far"))
        self.command = psutil.Process(host.number("command"))
        here = psutil.Process(near.pid)
        self.ssh = [each for each in here.children(recursive=True) if each.name() == "ssh"]
        session = [each for each in self.far.parents() if each.name() == "sshd" and each.ppid() != 0][:1]
        self.all = [here, *here.children(recursive=True), self.far, *self.far.children(recursive=True), *session]
        assert self.ssh and self.command in self.all and len(self.all) > 4

    def end(self) -> None:
        """None of them is left."""
        eventually(lambda: not any(lives(each) for each in self.all), "the end of all processes", ENDS_WITHIN_S)


@contextlib.contextmanager
def terminal_for(*words: object) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """`viamillipede WORDS` at a terminal of its own, which is its standard error; its standard input is a pipe."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "viamillipede", *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=slave, cwd=ROOT, bufsize=0,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    try:
        yield master, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        os.close(master)


def read_terminal(master: int) -> str:
    """What was written on it, until nobody has it open any more."""
    parts = bytearray()
    with contextlib.suppress(OSError):
        while piece := os.read(master, 65536):
            parts += piece
    return parts.decode(errors="replace")


def line_of(**members: object) -> str:
    """A line of the control channel; an answer, if it says nothing else."""
    return json.dumps({"viamillipede": 1, "kind": "answer", **members})
