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
from dataclasses import dataclass, replace
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
    SSH = "ssh"  # source | client; the sink is what the server runs


@dataclass(frozen=True, slots=True)
class Contender:
    """A name without blanks, and the commands; `legs` is None where the program has no such thing.

    pipe_bytes: how large its pipes are; 0: as the shell makes them. tx_cores: the processors that the source and tx
    may use, rx_cores: rx and the sink; empty: all that we may.
    """

    name: str
    rx: tuple[str, ...] = ()
    tx: tuple[str, ...] = ()
    shape: Shape = Shape.TRANSFER
    legs: int | None = None
    checksum: bool = False
    pipe_bytes: int = 0
    tx_cores: tuple[int, ...] = ()
    rx_cores: tuple[int, ...] = ()

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


def cores_name(name: str, count: int) -> str:
    """What a contender is called when it has so many processors for both sides."""
    return f"{name}@{count}"


def by_cores(contender: Contender, cores: Sequence[int]) -> list[Contender]:
    """It on one of these processors, on 2, 4 and so on, on all, and with one processor for each side."""
    counts = [count for power in range(len(cores).bit_length()) if (count := 1 << power) < len(cores)]
    confined = [(cores_name(contender.name, n), cores[:n], cores[:n]) for n in (*counts, len(cores))]
    if len(cores) > 1:
        confined.append((f"{contender.name}@1+1", cores[:1], cores[1:2]))
    return [replace(contender, name=name, tx_cores=tuple(tx), rx_cores=tuple(rx)) for name, tx, rx in confined]


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
