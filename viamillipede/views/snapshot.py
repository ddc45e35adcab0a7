"""How things stand at one moment: what every view is made from. Plain values; nothing here changes afterwards.

Times are integers of microseconds, sizes integers of bytes, rates bytes per second, shares parts of 1.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg, up or down. `path`: the rank of its path, from 0."""

    number: int
    path: int
    address: str
    state: str  # tx: busy, idle, mute, ends, down; rx: idle, direct, store, wait, discard
    moved_bytes: int  # sent by tx, received by rx, on its present connection
    rate: int  # now, over the last second or so
    rtt_us: int  # as the kernel tells; 0: unknown
    retransmissions: int  # segments that the kernel has sent again on the present connection
    in_flight_bytes: int  # given to the leg and not acknowledged; rx: 0
    hedged: int  # frames that it carried as a second copy; rx: bytes that it brought in vain
    restarts: int


@dataclass(frozen=True, slots=True)
class Path:
    """One way to the other side. Where nobody dials from here: one for each address that somebody came from."""

    address: str
    moved_bytes: int
    rate: int
    legs_up: int
    legs_wanted: int  # 0: not known here
    why: str = ""  # what decided how many legs it has, or why it does not work


@dataclass(frozen=True, slots=True)
class Waits:
    """The shares of the time since the first contact in which the stream waited for each. Their sum is at most 1."""

    source: float = 0.0
    network: float = 0.0
    core: float = 0.0  # this process, or the one on the other side, used all of a CPU core
    sink: float = 0.0
    limit: float = 0.0  # the user's own
    network_path: str = ""  # the address that the network's share is mostly about
    core_side: str = ""  # "tx" or "rx"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole program. `moved_bytes` counts what the output has accepted, as far as this side knows."""

    role: str  # "tx" or "rx"
    pid: int
    session: str  # 32 hexadecimal digits; "" before the first contact at rx
    name: str  # given by tx; "" for none
    peer: str  # an address of the other side, "" before the first contact
    elapsed_us: int  # since the first contact, or, before it, since the start
    contacted: bool
    moved_bytes: int
    read_bytes: int  # tx: taken from the input; rx: as moved_bytes
    size_bytes: int  # how much the user expects; 0: unknown
    rate: int  # now, over the last second or so
    rate_average: int
    window_used_bytes: int  # tx: read and not acknowledged; rx: memory of the reorder window
    window_bytes: int
    legs_up: int
    restarts: int
    retransmitted_frames: int
    retransmitted_bytes: int
    hedges: int
    corrupted: int  # rx
    refused: int  # connections of strangers
    waiting: str  # what the stream waits for now, as in the dump: "input", "output", "network: frame 12 on leg 3"
    idle_us: int  # since bytes moved last
    stalled: bool  # idle for long although there is something to move, and neither input nor output is why
    waits: Waits
    verdict: str  # in words: "bottleneck: the source, 93 % of the time"; "" while too little is known
    cpu_share: float  # of one core, over the last second or so
    state: str = "running"  # "waiting" before the first contact, "running", then "complete" or "failed"
    exit_status: int | None = None  # at the end
    reason: str = ""  # of a failure, one line
    cipher: str = ""  # of the legs, as "AES-256-GCM"; "" for none
    digest: str = ""  # at the end: "xxh3-128 0123..."; "" for none
    legs: tuple[Leg, ...] = field(default=())
    paths: tuple[Path, ...] = field(default=())

    def stall(self) -> str:
        """`STALLED 12 s: waiting for frame 8812 on leg 3 (10.0.0.2)`, or "" while there is no stall."""
        if not self.stalled:
            return ""
        return f"STALLED {self.idle_us // 1_000_000} s: waiting for {self.waiting.removeprefix('network: ')}"

    def left_us(self) -> int | None:
        """How long the rest will take at the average rate; None where that cannot be told."""
        if not self.size_bytes or not self.rate_average or self.moved_bytes > self.size_bytes:
            return None
        return (self.size_bytes - self.moved_bytes) * 1_000_000 // self.rate_average
