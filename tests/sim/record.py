"""What happened when, for a picture of one seed."""

from typing import NamedTuple


class Sent(NamedTuple):
    """A frame was given to a leg. `how`: new, again (its leg was lost) or hedged (another leg carries it too)."""

    at_us: int
    leg: int
    seq: int
    length: int
    how: str


class Arrived(NamedTuple):
    """A copy has been read to its end. `useful`: it brought at least one byte that no other had."""

    at_us: int
    leg: int
    seq: int
    useful: bool


class Sample(NamedTuple):
    """How things stood.

    `due`: the frame that rx waits for; `wanted`: legs, by the tuners; `unacked`: bytes in the socket of each leg
    that is up.
    """

    at_us: int
    written: int
    head: int
    limit: int
    memory: int
    due: int
    wanted: int
    unacked: dict[int, int]


class Record:
    """Of one run."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.arrived: list[Arrived] = []
        self.samples: list[Sample] = []
        self.lost: list[tuple[int, int, str]] = []  # when, leg, why
        self.up: list[tuple[int, int, int]] = []  # when, leg, rank
        self.marks: list[tuple[int, str]] = []  # what happened to the roads
