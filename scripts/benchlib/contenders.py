"""Who takes part in a benchmark, and with which command lines.

A contender is a pair of commands that move one pipe over loopback TCP. `{port}` in a command stands for
the port that was chosen for the run. The limits are no transfers: `pipe` is the source and the sink with
one pipe of 1 MiB between them, `iperf3` is one TCP connection that carries bytes of its own making.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from benchlib import THREADS_DEFAULT

OURS = "viamillipede"
PEERS = ("nc", "socat", "mbuffer")
PIPE, IPERF3 = "pipe", "iperf3"
LEGS_DEFAULT = tuple(sorted({1, 4, 8, 16, THREADS_DEFAULT}))


class Shape(Enum):
    """How a contender is driven."""

    TRANSFER = "transfer"  # source | tx, rx | sink
    PIPE = "pipe"  # source | sink
    IPERF3 = "iperf3"  # a server, and a client that reports its own rate


@dataclass(frozen=True, slots=True)
class Contender:
    """A name without blanks, and the commands; `legs` is None where the program has no such thing."""

    name: str
    rx: tuple[str, ...] = ()
    tx: tuple[str, ...] = ()
    shape: Shape = Shape.TRANSFER
    legs: int | None = None
    checksum: bool = False

    def commands(self, port: int) -> tuple[list[str], list[str]]:
        """rx's and tx's arguments for one run on `port`."""
        rx, tx = ([word.replace("{port}", str(port)) for word in command] for command in (self.rx, self.tx))
        return rx, tx


class BenchError(Exception):
    """What was asked for cannot be measured; the message tells the user what to mend."""


def ours_name(legs: int, checksum: bool = False) -> str:
    """What our program is called in tables: `viamillipede-8`, `viamillipede-8-checksum`."""
    return f"{OURS}-{legs}" + ("-checksum" if checksum else "")


def ours(legs: int, checksum: bool = False) -> Contender:
    """Our program with `legs` connections, run by this very interpreter so that no wrapper is measured."""
    program = (sys.executable, "-m", OURS)
    words = ("checksum",) if checksum else ()
    return Contender(
        name=ours_name(legs, checksum),
        rx=(*program, "rx", "{port}", "bind", "127.0.0.1", *words),
        tx=(*program, "tx", "127.0.0.1", "{port}", "threads", str(legs), *words),
        legs=legs,
        checksum=checksum,
    )


def _nc() -> Contender:
    usage = subprocess.run(["nc", "-h"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if "OpenBSD" in usage.stdout + usage.stderr:  # the others take the port as an option, and have no -N
        return Contender("nc", ("nc", "-l", "127.0.0.1", "{port}"), ("nc", "-N", "127.0.0.1", "{port}"))
    return Contender("nc", ("nc", "-l", "-p", "{port}"), ("nc", "-q", "0", "127.0.0.1", "{port}"))


def _socat() -> Contender:
    socat = ("socat", "-u", "-b", "1048576")
    return Contender(
        "socat",
        (*socat, "TCP4-LISTEN:{port},bind=127.0.0.1,reuseaddr", "STDOUT"),
        (*socat, "STDIN", "TCP4:127.0.0.1:{port}"),
    )


def _mbuffer() -> Contender:
    # 16 blocks are its best: with 64 or 256 it is no faster, and spends more CPU.
    mbuffer = ("mbuffer", "-q", "-s", "1M", "-m", "16M")
    return Contender("mbuffer", (*mbuffer, "-I", "127.0.0.1:{port}"), (*mbuffer, "-O", "127.0.0.1:{port}"))


def _iperf3() -> Contender:
    return Contender(
        IPERF3,
        ("iperf3", "-s", "-1", "-4", "-B", "127.0.0.1", "-p", "{port}"),
        ("iperf3", "-c", "127.0.0.1", "-p", "{port}", "-J", "-n"),  # the driver appends the number of bytes
        Shape.IPERF3,
    )


def installed() -> tuple[list[Contender], list[str]]:
    """The peers and limits that this machine can run, and the names of those that are not installed."""
    known = {"nc": _nc, "socat": _socat, "mbuffer": _mbuffer, IPERF3: _iperf3}
    found = [make() for name, make in known.items() if shutil.which(name)]
    missing = [name for name in known if not shutil.which(name)]
    return [*found, Contender(PIPE, shape=Shape.PIPE)], missing


def from_user(words: Sequence[str]) -> Contender:
    """`NAME=RX COMMAND`, `TX COMMAND` as given to --contender. Raises BenchError."""
    named, tx = words
    name, equals, rx = named.partition("=")
    if not equals or not name or any(letter.isspace() or letter == "," for letter in name):
        raise BenchError(f"--contender takes NAME='RX COMMAND' 'TX COMMAND', not {named!r}")
    try:
        contender = Contender(name, tuple(shlex.split(rx)), tuple(shlex.split(tx)))
    except ValueError as error:
        raise BenchError(f"--contender {name}: {error}; check the quotes") from error
    if name == IPERF3 or name == PIPE or name in PEERS or name.startswith(OURS):
        raise BenchError(f"--contender {name}: the name is taken")
    for side, command in (("RX", contender.rx), ("TX", contender.tx)):
        if not command or shutil.which(command[0]) is None:
            raise BenchError(f"--contender {name}: the {side} command names no program that can be run")
        if not any("{port}" in word for word in command):
            raise BenchError(f"--contender {name}: the {side} command must contain {{port}}")
    return contender
