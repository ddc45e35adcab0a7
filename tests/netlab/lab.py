"""Two hosts, "left" and "right", in network namespaces without a name, and the links between them.

Link N has 10.88.N.1 on the left and 10.88.N.2 on the right, on a device linkN on both sides. The address on the
left decides which link a packet takes, in both directions: connect from the left to 10.88.N.2, or bind 10.88.N.1
there and connect to any address of the right; or connect from the right to 10.88.N.1.

Everything ends with the block, and also when the process that made it is killed: the shuttle, the programs that
were started on the hosts, and with them the namespaces. Start programs from a thread that outlives them: the
kernel ends them with the thread.
"""

import contextlib
import ctypes
import dataclasses
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.netlab.build import LabError, shuttle

Result = TypeVar("Result")

TO_RIGHT, TO_LEFT = 0, 1  # the directions of a link
MTU_BYTES = 1500
TABLE_FIRST = 100  # the routing table of link N's left address is this plus N
TUN_PACKETS = 5000  # how many may wait for the shuttle, each of up to 64 KiB
PATIENCE_S = 30.0  # for what takes milliseconds; a laboratory that needs longer has broken down
CLONE_NEWNET = 0x40000000  # of linux/sched.h
LISTENING = "0A"  # a socket's state in /proc/net/tcp

# rp_filter would drop what takes another link than the main table says; one transfer must not learn from the
# one before it; and IPv6 talks to itself, which would shift the fate of every packet.
PREPARE = """\
cd /proc/sys/net
for filter in ipv4/conf/*/rp_filter; do echo 0 >"$filter"; done
echo 1 >ipv4/tcp_no_metrics_save
if [ -d ipv6 ]; then echo 1 >ipv6/conf/all/disable_ipv6; fi
exec ip -batch -
"""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is like, in both directions unless `back` tells of the other one.

    rate_mbit: of IP packets, 0 means unlimited; TCP's payload is 1448/1500 of it. delay_ms: one way, after the
    bottleneck. loss: the share of packets, 0 to 1. queue_ms: what fits into the bottleneck's queue, in time at
    the rate of the moment.
    """

    rate_mbit: float = 0.0
    delay_ms: float = 0.0
    loss: float = 0.0
    queue_ms: float = 50.0
    back: "Link | None" = None

    @property
    def queue_bytes(self) -> int:
        """What the queue holds; at least two packets, or nothing would pass."""
        return max(2 * MTU_BYTES, round(self.rate_mbit * 125 * self.queue_ms))


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the packets of one direction of a link so far.

    packets, bytes: delivered, bytes of IP. dropped: the queue was full. lost: by the dice. cut: the link was down.
    late_ns: how much too late the `writes` deliveries were in all; late_ns_max: the latest of them.
    """

    packets: int
    bytes: int
    dropped: int
    lost: int
    cut: int
    late_ns: int
    late_ns_max: int
    writes: int


COUNTERS = struct.Struct(f"{len(dataclasses.fields(Counters))}Q")


class LiveLink:
    """A link of a running laboratory: can be cut, mended, changed, and asked."""

    def __init__(self, lab: "Lab", number: int, spec: Link) -> None:
        self._lab, self.number = lab, number
        self._ways = [dataclasses.replace(spec, back=None), dataclasses.replace(spec.back or spec, back=None)]
        self._cut = False
        self.left, self.right = f"10.88.{number}.1", f"10.88.{number}.2"

    def set(self, way: int | None = None, **changes: Any) -> None:
        """Change rate_mbit, delay_ms, loss or queue_ms now, in one direction or both; what is in the queue stays."""
        for one in (TO_RIGHT, TO_LEFT) if way is None else (way,):
            self._ways[one] = dataclasses.replace(self._ways[one], **changes)
            self._tell(one)

    def down(self) -> None:
        """Cut it: what is on it and what comes to it vanishes, in both directions, and nobody is told."""
        self._cut = True
        self.set()

    def up(self) -> None:
        """Mend it."""
        self._cut = False
        self.set()

    def counters(self, way: int = TO_RIGHT) -> Counters:
        """What became of the packets of this direction so far."""
        return self._lab.counters(2 * self.number + way)

    def _tell(self, way: int) -> None:
        spec = self._ways[way]
        figures = (spec.rate_mbit * 1e6, spec.delay_ms * 1e6, spec.loss * 1e9, spec.queue_bytes, self._cut)
        self._lab.order(" ".join(map(str, (2 * self.number + way, *map(round, figures)))))


class Host:
    """One end of all links; programs are started on it."""

    def __init__(self, name: str, space: str, addresses: Sequence[str]) -> None:
        self.name, self.space, self.addresses = name, space, tuple(addresses)
        self._children: list[subprocess.Popen[Any]] = []

    def command(self, argv: Sequence[str]) -> list[str]:
        """These arguments, preceded by what takes the program to this host. Its process id does not change."""
        return [shuttle(), "enter", self.space, str(os.getpid()), *argv]

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program; the options are those of subprocess.Popen. Killed with the laboratory at the latest."""
        child = subprocess.Popen(self.command(argv), **options)
        self._children.append(child)
        return child

    def run(self, argv: Sequence[str], text: str = "") -> str:
        """What a short program prints when it is given `text`. Raises LabError if it fails."""
        done = subprocess.run(
            self.command(argv), input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        if done.returncode != 0:
            raise LabError(f"{self.name}: {argv[0]}: {done.stderr.strip() or f'exited {done.returncode}'}")
        return done.stdout

    def open_socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A new IPv4 socket of this process that belongs to this host. Raises LabError."""
        return self._there(lambda: socket.socket(socket.AF_INET, kind))

    def listening(self) -> set[int]:
        """The TCP ports on which somebody listens here."""

        def table() -> list[str]:
            paths = [path for name in ("tcp", "tcp6") if (path := Path("/proc/thread-self/net") / name).exists()]
            return [line for path in paths for line in path.read_text().splitlines()[1:]]

        rows = [line.split() for line in self._there(table)]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING}

    def _there(self, function: Callable[[], Result]) -> Result:
        """Call it in a thread that moves to this host and then ends."""

        def call() -> Result:
            with open(self.space) as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), CLONE_NEWNET) != 0:
                    raise LabError(f"{self.name}: {os.strerror(ctypes.get_errno())}")
            return function()

        with ThreadPoolExecutor(1) as executor:
            return executor.submit(call).result()

    def release(self) -> None:
        """Wait for the programs, which have been killed, and close their pipes."""
        for child in self._children:
            child.wait(PATIENCE_S)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # what was not written yet, nobody wants
                        stream.close()


class Lab:
    """The hosts and the links between them, from __enter__ to __exit__.

    links: from 1 to 16. seed: fixes which packets are lost: the n-th of a link and direction always, or never.
    congestion: the algorithm of all TCP connections that do not choose their own; None: the system's.
    """

    def __init__(self, links: Sequence[Link], seed: int = 1, congestion: str | None = None) -> None:
        self.specs, self.seed, self.congestion = tuple(links), seed, congestion
        self.links: list[LiveLink] = []
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            left, right = self._start()
            self.links = [LiveLink(self, number, spec) for number, spec in enumerate(self.specs)]
            for link in self.links:
                link.set()
            self.left = Host("left", left, [link.left for link in self.links])
            self.right = Host("right", right, [link.right for link in self.links])
            self.left.run(["sh", "-ec", PREPARE], "".join(map(self._left_of, self.links)))
            self.right.run(["sh", "-ec", PREPARE], "".join(map(self._right_of, self.links)))
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._exit.close()
        self.left.release()
        self.right.release()

    def _start(self) -> tuple[str, str]:
        """Start the shuttle; the paths of the namespaces of left and right."""
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(PATIENCE_S)
        counters = os.memfd_create("netlab")
        try:
            size = 2 * len(self.specs) * COUNTERS.size
            os.ftruncate(counters, size)
            self._shared = self._exit.enter_context(mmap.mmap(counters, size, access=mmap.ACCESS_READ))
            words = map(str, (other.fileno(), counters, len(self.specs), self.seed))
            self._shuttle = subprocess.Popen(
                [shuttle(), "run", *words], pass_fds=(other.fileno(), counters), stdin=subprocess.DEVNULL
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            other.close()
            os.close(counters)
        self._exit.callback(self._stop)
        word, *spaces = self._answer().split()
        left, right = (f"/proc/{self._shuttle.pid}/fd/{space}" for space in spaces)
        assert word == "ready"
        return left, right

    def _stop(self) -> None:
        """The end of the control socket tells the shuttle to kill what runs on the hosts, and to end."""
        self._control.close()
        try:
            self._shuttle.wait(PATIENCE_S)
        finally:
            self._shuttle.kill()
            self._shuttle.wait()

    def _answer(self) -> str:
        answer = self._control.recv(1024).decode()
        if not answer or answer.startswith("error "):
            raise LabError(answer.removeprefix("error ") or "the shuttle has ended")
        return answer

    def order(self, words: str) -> None:
        """Send one order to the shuttle and wait until it is carried out. Raises LabError."""
        try:
            self._control.send(words.encode())
            answer = self._answer()
        except OSError as error:
            raise LabError(f"the shuttle does not answer: {error}") from error
        assert answer == "ok"

    def counters(self, lane: int) -> Counters:
        """Those of one lane: twice the link's number plus the direction."""
        return Counters(*COUNTERS.unpack_from(self._shared, lane * COUNTERS.size))

    def late_us(self) -> tuple[float, float]:
        """How late the deliveries of all links were, in microseconds: on average, and at most.

        More than a millisecond on average means that this machine was too busy for the links to be what they say.
        """
        found = [self.counters(lane) for lane in range(2 * len(self.specs))]
        writes = sum(one.writes for one in found)
        return sum(one.late_ns for one in found) / max(1, writes) / 1e3, max(one.late_ns_max for one in found) / 1e3

    def shuttle_cpu_s(self) -> float:
        """CPU seconds of the shuttle so far; most TCP work of both hosts happens in its system calls."""
        fields = Path(f"/proc/{self._shuttle.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def enable_mptcp(self) -> None:
        """Let MPTCP connections from left to right use all links: one subflow each, made by the kernel."""
        limit = str(len(self.links))
        for host in (self.left, self.right):
            host.run(["ip", "mptcp", "limits", "set", "subflow", limit, "add_addr_accepted", limit])
        for link in self.links[1:]:
            self.left.run(["ip", "mptcp", "endpoint", "add", link.left, "dev", f"link{link.number}", "subflow"])

    # ---- addresses and routes, in the language of ip -batch -----------------------------------------
    def _device(self, link: LiveLink, own: str, other: str) -> str:
        device, algorithm = f"link{link.number}", self._algorithm()
        return (
            f"{'link set lo up' if link.number == 0 else ''}\n"
            f"link set {device} mtu {MTU_BYTES} txqueuelen {TUN_PACKETS} up\n"
            f"addr add {own} peer {other} dev {device}\n"
            f"route replace {other} dev {device} src {own}{algorithm}\n"
        )

    def _left_of(self, link: LiveLink) -> str:
        table = TABLE_FIRST + link.number
        return self._device(link, link.left, link.right) + (
            f"route add default dev link{link.number} src {link.left} table {table}{self._algorithm()}\n"
            f"rule add from {link.left} table {table}\n"
        )

    def _right_of(self, link: LiveLink) -> str:
        return self._device(link, link.right, link.left)

    def _algorithm(self) -> str:
        """By a route attribute, because a namespace may refuse as its default what the kernel has."""
        return f" congctl {self.congestion}" if self.congestion else ""
