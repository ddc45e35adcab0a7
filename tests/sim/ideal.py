"""What roads can carry: an ideal sender on the same roads, whose legs are always full and always read."""

import random

from tests.sim.agenda import BEGIN_US, Agenda
from tests.sim.road_options import RoadOptions
from tests.sim.roads import Road
from tests.sim.tcp import SEND_BYTES_MAX, Flow, Packet

LEGS_TRIED = (2, 8, 32)  # on each road, where tx tunes itself


class Endless(Flow):
    """A flow whose sender always has more and whose receiver always reads: what a connection can carry."""

    _full = False

    def _waiting(self) -> int:
        """As much as fits into its socket; a full one is filled again when a third is free."""
        held = self._next - self._una
        self._full = held >= SEND_BYTES_MAX or (self._full and 3 * held >= 2 * SEND_BYTES_MAX)
        return 0 if self._full else SEND_BYTES_MAX - held

    def _take(self, size: int) -> bytes:
        return b""

    def _keep(self, packet: Packet) -> None:
        self._on_read(packet.size)

    def start(self) -> None:
        """Begin to send."""
        self._transmit()

    def delivered(self) -> int:
        """Bytes that the receiver has read."""
        return self._read


def lay_roads(agenda: Agenda, options: RoadOptions) -> list[Road]:
    """The roads of a world; with the same seed they lose the same."""
    return [Road(agenda, random.Random(options.seed * 16 + i), plan) for i, plan in enumerate(options.roads)]


class Ideal:
    """The same roads and legs, each leg with an endless flow, dialled anew whenever its road is open again."""

    def __init__(self, options: RoadOptions, threads: int) -> None:
        self._agenda, self._threads = Agenda(), threads
        self._roads = lay_roads(self._agenda, options)
        self._flows: list[Endless] = []
        self._past = 0
        self._total = options.total_bytes
        for rank, road in enumerate(self._roads):
            self._open(rank)
            for _, to_us in road.plan.downs:
                self._agenda.after(to_us + 1, lambda rank=rank: self._open(rank))  # type: ignore[misc]

    def _open(self, rank: int) -> None:
        road = self._roads[rank]
        for flow in self._flows:
            if flow.road is road:
                flow.cut = True
        for _ in range(rank, self._threads, len(self._roads)):
            flow = Endless(road, road.there, road.back)
            self._flows.append(flow)
            self._agenda.after(2 * road.round_trip_us(), flow.start)  # to connect and to greet

    def run(self) -> int:
        """When it has brought the whole stream over and knows it."""
        while True:
            for _ in range(20):
                self._agenda.step()
            if sum(flow.delivered() for flow in self._flows) >= self._total:
                return self._agenda.now_us + min(road.back.delay_us for road in self._roads) - BEGIN_US


def ideal_us(options: RoadOptions) -> int:
    """How long the ideal sender takes; with the best number of legs where tx is to find it."""
    roads = options.addresses
    numbers = [max(options.threads, roads)] if options.threads else [roads * each for each in LEGS_TRIED]
    return max(min(Ideal(options, threads).run() for threads in numbers), options.bound_us())
