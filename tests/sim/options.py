"""What a seed draws: links, windows, reader, source and faults of one simulated world."""

import random
from dataclasses import dataclass, fields, replace

from viamillipede.config import KIB, MIB, MS_US, S_US

FAULT_KINDS = ("reset", "close", "stall", "trickle", "corrupt")


@dataclass(frozen=True, slots=True)
class Link:
    """One leg's path. Rates in bytes per second; the way back carries only control messages."""

    rate: int
    delay_us: int
    back_rate: int
    back_delay_us: int
    send_bytes: int  # tx's socket buffer
    receive_bytes: int  # rx's socket buffer: full while rx does not read
    low_water_bytes: int  # the socket is writable while less than this is unsent


@dataclass(frozen=True, slots=True)
class Reader:
    """What stands behind rx's output. `rate` 0: takes everything at once; pauses after `pause_every` bytes."""

    pipe_bytes: int
    rate: int
    pause_every: int
    pause_us: int


@dataclass(frozen=True, slots=True)
class Source:
    """What feeds tx: at most `piece` bytes every `gap_us`, and a pause after `pause_every` bytes."""

    piece: int
    gap_us: int
    pause_every: int
    pause_us: int


@dataclass(frozen=True, slots=True)
class Options:
    """One world. Everything that happens in it follows from these and from the seed."""

    seed: int
    total_bytes: int
    tx_window: int
    rx_window: int
    window_start: int  # stands for WINDOW_BYTES_START, so that small streams make the window grow
    frames_max: int  # stands for FRAMES_MAX
    frame_bytes: int
    tx_checksum: bool
    rx_checksum: bool
    direct: bool
    addresses: int
    reader: Reader
    source: Source
    piece_bytes: int  # TCP delivers pieces of 1 ..= this
    calm: bool  # equal, constant links and no fault: nothing may be sent twice
    fault_kinds: tuple[str, ...]
    fault_chance: float  # that a connection meets a fault
    fault_bytes: int  # mean position of the fault in the connection
    refuse_chance: float  # that an attempt to connect fails while faults last
    comes_back: float  # chance that a stalled or slow leg recovers by itself; else slow ones never do
    faults_end_us: int
    dead_share: float  # of the legs when faults end, besides those that are dead already
    check_every: int
    links: tuple[Link, ...]
    tx_digest: str = "auto"
    rx_digest: str = "auto"
    damaged: str = ""  # "tx" or "rx": one byte is another one when this side takes its digest

    @property
    def threads(self) -> int:
        """A leg for each link."""
        return len(self.links)

    def describe(self) -> str:
        """One line per option."""
        lines = [f"  {f.name} = {getattr(self, f.name)}" for f in fields(self) if f.name != "links"]
        return "\n".join(lines + [f"  leg {i}: {link}" for i, link in enumerate(self.links)])


def draw(seed: int) -> Options:
    """The world of a seed."""
    rng = random.Random(seed)
    calm = rng.random() < 0.2
    frame = rng.choice((KIB, KIB, 2 * KIB, 4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB))
    window = max(64 * KIB, frame * rng.choice((1, 4, 6, 11, 25, 50))) + rng.choice((0, rng.randrange(64 * KIB)))
    total = _draw_total(rng, min(frame, window // 4))
    count = rng.choices(
        (1, 2, 3, 4, rng.randint(5, 8), rng.randint(9, 12), rng.randint(40, 48)), (2, 3, 3, 3, 3, 2, 0.3)
    )[0]
    kinds = tuple(rng.sample(FAULT_KINDS, rng.choice((1, 1, 2, 3, len(FAULT_KINDS)))))
    if rng.random() < 0.1:
        kinds = ("corrupt", "trickle")  # damage to what two legs bring
    checksum = rng.random() < (0.8 if "corrupt" in kinds[:1] else 0.35)
    lingering = kinds in (("stall",), ("trickle",)) and rng.random() < 0.5  # long enough for a bad leg to be noticed
    options = Options(
        seed=seed,
        total_bytes=total,
        tx_window=window,
        rx_window=window if rng.random() < 0.7 else max(64 * KIB, window // rng.choice((2, 3, 4)) + rng.randrange(999)),
        window_start=rng.choice((max(4 * frame, 8 * KIB), 32 * KIB, 64 * KIB, 8 * MIB)),
        frames_max=rng.choice((16384, 16384, 16384, 32, 8)),
        frame_bytes=frame,
        tx_checksum=checksum,
        rx_checksum=checksum == (rng.random() < 0.8),  # either side's wish is enough
        direct=rng.random() < 0.75,
        addresses=rng.choice((1, 1, 2, 3)),
        reader=_draw_reader(rng, total),
        source=Source(max(total // 300, 1), 200 * MS_US, 0, 0) if lingering else _draw_source(rng, total),
        piece_bytes=rng.choice((64, 1460, 8 * KIB, 32 * KIB, 64 * KIB))
        if total <= 64 * KIB
        else rng.choice((8 * KIB, 64 * KIB)),
        calm=calm,
        fault_kinds=kinds,
        fault_chance=0 if calm else rng.choice((0.3, 0.7, 0.95)),
        fault_bytes=rng.choice((100, 2 * KIB, 16 * KIB, max(total // 4, 1))),
        refuse_chance=0 if calm else rng.choice((0, 0.1, 0.5)),
        comes_back=rng.choice((0, 0.5, 1)),
        faults_end_us=rng.choice((2, 10, 30)) * S_US,
        dead_share=0 if calm else rng.choice((0, 0.3, 0.9)),
        check_every=rng.choice((1, 4, 16)),
        links=_draw_links(rng, calm, count, total, frame),
    )
    options = replace(options, addresses=min(options.addresses, count))  # each needs a leg that dials it
    return _with_digests(options)


def _with_digests(options: Options) -> Options:
    """The digests have a chance of their own: what else a seed draws does not depend on it."""
    rng = random.Random(f"digests {options.seed}")
    kinds, weights = ("auto", "xxh3", "sha256"), (10, 1, 1)
    tx_digest, rx_digest = rng.choices(kinds, weights, k=2)
    taken = not options.direct or options.tx_checksum or options.rx_checksum or {tx_digest, rx_digest} != {"auto"}
    damaged = rng.choice(("tx", "rx")) if taken and options.total_bytes and rng.random() < 0.1 else ""
    return replace(options, tx_digest=tx_digest, rx_digest=rx_digest, damaged=damaged)


def _draw_total(rng: random.Random, frame: int) -> int:
    many = rng.choice((8, 30, 100, 300))
    return rng.choices(
        (
            0,
            1,
            frame - 1,
            frame,
            frame + 1,
            rng.randint(1, 20 * frame),
            min(many * frame + rng.randrange(frame), 3 * MIB),
        ),
        (1, 1, 1, 1, 1, 5, 12),
    )[0]


def _draw_reader(rng: random.Random, total: int) -> Reader:
    pipe = rng.choice((4 * KIB, 64 * KIB, MIB))
    kind = rng.choices(("fast", "slow", "pausing"), (5, 3, 2))[0]
    rate = 0 if kind == "fast" else max(total // rng.choice((1, 5, 20)), 4 * KIB)
    if kind != "pausing":
        return Reader(pipe, rate, 0, 0)
    return Reader(pipe, rng.choice((0, rate)), max(total // rng.randint(1, 4), 1), rng.choice((1, 20, 150)) * S_US)


def _draw_source(rng: random.Random, total: int) -> Source:
    kind = rng.choices(("fast", "trickle", "pausing"), (6, 1, 2))[0]
    if kind == "fast":
        return Source(64 * KIB, 0, 0, 0)
    if kind == "trickle":
        return Source(max(total // 200, 1), rng.choice((1, 10, 200)) * MS_US, 0, 0)
    return Source(16 * KIB, rng.choice((0, 500)), max(total // rng.randint(1, 5), 1), rng.choice((1, 20, 150)) * S_US)


def _draw_links(rng: random.Random, calm: bool, count: int, total: int, frame: int) -> tuple[Link, ...]:
    # In a calm world a frame must not take longer than the least time after which it is called late.
    slowest = max(20 * frame, total // 20) if calm else max(2 * KIB, total // 20, frame // 2)
    buffers = [size for size in (2 * KIB, 16 * KIB, 64 * KIB, 512 * KIB) if not calm or size >= frame]

    def link() -> Link:
        rate = int(slowest * 2 ** rng.uniform(0, 14))
        return Link(
            rate=rate,
            delay_us=int(100 * 2 ** rng.uniform(0, 11)),
            back_rate=max(int(rate * rng.choice((1, 0.1))), 16 * KIB),
            back_delay_us=int(100 * 2 ** rng.uniform(0, 11)),
            send_bytes=rng.choice(buffers),
            receive_bytes=rng.choice(buffers),
            low_water_bytes=rng.choice((1, 4 * KIB, 16 * KIB)),
        )

    first = link()
    alike = calm or rng.random() < 0.2
    if not calm:
        return tuple(first if alike or not i else link() for i in range(count))
    return tuple(replace(first, back_delay_us=int(first.back_delay_us * rng.uniform(0.2, 1))) for _ in range(count))
