"""What the two shells need of a world, whatever its connections are made of."""

import random
from collections.abc import Callable
from typing import Protocol

from tests.sim.options import Source
from tests.sim.record import Record


class Way(Protocol):
    """One direction of a connection: the sender's socket and the receiver's."""

    on_readable: Callable[[], None]
    on_writable: Callable[[], None]
    ended: bool

    def send(self, data: memoryview | bytes, may_corrupt: bool) -> int:
        """How many bytes the socket took."""

    def limit_unsent(self, count: int) -> None:
        """TCP_NOTSENT_LOWAT: about so many bytes may wait that are not on their way."""

    def unacked_bytes(self) -> int:
        """What the sender's kernel still holds."""

    def receive(self, count_max: int) -> bytes:
        """Up to so many bytes."""

    def readable_bytes(self) -> int:
        """What the receiver's kernel holds."""


class Joined(Protocol):
    """A connection that has been established."""

    broken: bool

    @property
    def leg(self) -> int:
        """tx's number of it."""

    @property
    def key(self) -> int:
        """Which no other connection has."""

    @property
    def forward(self) -> Way:
        """From tx to rx."""

    @property
    def back(self) -> Way:
        """From rx to tx."""

    def round_trip_us(self) -> tuple[int, int]:
        """The kernel's smoothed and its least round trip; 0: not measured."""


class Settings(Protocol):
    """What both kinds of options have."""

    @property
    def seed(self) -> int:
        """All that happens follows from it."""

    @property
    def total_bytes(self) -> int:
        """The stream."""

    @property
    def tx_window(self) -> int:
        """Bytes."""

    @property
    def rx_window(self) -> int:
        """Bytes."""

    @property
    def frame_bytes(self) -> int:
        """At most."""

    @property
    def frames_max(self) -> int:
        """On their way at a time."""

    @property
    def tx_checksum(self) -> bool:
        """Whether tx wants it."""

    @property
    def rx_checksum(self) -> bool:
        """Whether rx wants it."""

    @property
    def tx_digest(self) -> str:
        """Which tx wants."""

    @property
    def rx_digest(self) -> str:
        """Which rx wants."""

    @property
    def damaged(self) -> str:
        """Whose digest is of another stream: "tx", "rx", or "" for nobody's."""

    @property
    def direct(self) -> bool:
        """Whether the output takes bytes from a socket."""

    @property
    def addresses(self) -> int:
        """How many."""

    @property
    def threads(self) -> int:
        """Legs, at least one for each address; 0: tx tunes itself."""

    @property
    def source(self) -> Source:
        """What feeds tx."""

    @property
    def check_every(self) -> int:
        """Steps between two looks at every invariant."""


class Content(Protocol):
    """The stream's bytes."""

    def __getitem__(self, where: slice, /) -> bytes: ...


class Sim(Protocol):
    """A world in virtual time, with both shells in it."""

    now_us: int
    rng: random.Random
    record: Record | None

    @property
    def options(self) -> Settings:
        """What was drawn."""

    @property
    def source(self) -> Content:
        """The stream."""

    def after(self, delay_us: int, step: Callable[[], None]) -> None:
        """Do `step` in `delay_us`."""

    def note(self, text: str) -> None:
        """A line of the story."""

    def count(self, what: str, by: int = 1) -> None:
        """This has happened."""

    def dial(self, leg: int, rank: int, up: Callable[[], None], failed: Callable[[str, bool], None]) -> None:
        """Try to connect; then `up`, or `failed` with the reason and whether nobody listens there."""

    def connect(self, leg: int, rank: int) -> Joined:
        """What has been dialled. rx has accepted it."""

    def close_from_tx(self, connection: Joined, reset: bool) -> None:
        """At once, or once all it was given has arrived."""

    def close_from_rx(self, connection: Joined) -> None:
        """In order."""

    def on_asked(self) -> None:
        """rx has just asked for the digest: a good moment for a fault."""

    def on_tx_tick(self) -> None:
        """tx has looked at its deadlines; the world checks that it has seen all it should."""
