"""Measuring the way to a receiver: one session whose stream is made up here, on more and more legs.

    connecting --CONNECTS legs are up--> settling --> measuring --> settling with twice the legs ...
                                                      measuring --> ending --> done

The receiver is an ordinary one, and serves this one stream. It delivers the test stream to its output.
"""

import os
import socket
from dataclasses import dataclass

import psutil

from viamillipede.aio.sockets import check_congestion, unacked_bytes
from viamillipede.aio.tx import Transmitter
from viamillipede.aio.tx_leg import TxConnection
from viamillipede.config import MIB, MS_US, S_US, Address, DoctorConfig, TxConfig
from viamillipede.doctor.advice import MUCH, STILL_GROWING, Measured, Step, at_an_end
from viamillipede.doctor.host import Host
from viamillipede.doctor.tcp_info import TcpInfo, congestion_of, tcp_info
from viamillipede.errors import LimitReached, UsageError
from viamillipede.protocol.waits import Wait

CONNECTS = 5
STEPS = (1, 2, 4, 8, 16)  # legs, and ...
STEPS_MORE = (32, 64)  # ... while twice as many still bring much more
STEPS_LONG = (1, 4, 16)  # where a step takes long
STEPS_LONG_MORE = (64,)
LONG_US = 150 * MS_US
UP_US = 1500 * MS_US  # legs that are not up by then are done without
SETTLE_US_MIN = 400 * MS_US  # out of slow start ...
SETTLE_TRIPS = 8  # ... which takes so many round trips
SETTLE_US_MAX = 2500 * MS_US
MEASURE_US_MIN = 1200 * MS_US
MEASURE_TRIPS = 5
BUDGET_US = 15 * S_US  # no step begins that would end later
END_US = 10 * S_US  # the rest of the test stream has to be delivered by then
REGROUP_US = 3 * S_US  # a receiver that is gone for so long does not come back ...
OUTAGE_US = 10 * S_US  # ... nor does a network; nobody waits minutes for a measurement
FULL_PERCENT = 70  # of the buffer is data; the rest is the kernel's bookkeeping
NAME = "doctor"  # of the stream: a receiver that takes certain names only is not met by accident
BLOCK_BYTES = 1 * MIB


class TestStream:
    """A Source: the same random block again and again, which no tunnel compresses, while it `flows`."""

    __test__ = False  # for pytest

    def __init__(self) -> None:
        self._block = memoryview(os.urandom(BLOCK_BYTES))
        self._at = 0
        self.flows = self.ended = False

    def read_into(self, view: memoryview) -> int | None:
        """See Source."""
        if self.ended:
            return 0
        if not self.flows:
            return None
        count = min(len(view), BLOCK_BYTES - self._at)
        view[:count] = self._block[self._at : self._at + count]
        self._at = (self._at + count) % BLOCK_BYTES
        return count


@dataclass(slots=True)
class _Mark:
    """How things stood when a measurement began, and what was seen every tick since."""

    at_us: int
    delivered: int
    booked_us: list[int]  # what was waited for, in the order of Wait
    infos: dict[socket.socket, TcpInfo]
    ticks: int = 0
    window_ticks: int = 0
    leg_ticks: int = 0
    full_ticks: int = 0  # of legs whose send buffer was full, and as large as it may be


class Probe(Transmitter):
    """A transmitter that measures instead of reading an input. `steps`: what it has found so far."""

    def __init__(self, config: TxConfig, host: Host) -> None:
        super().__init__(config)
        self._host = host
        self._buffer_bytes = (host.sysctl_numbers("net.ipv4.tcp_wmem") or [0])[-1]  # the most there may be; 0: unknown
        self.stream = TestStream()
        self.source = self.stream
        self.steps: list[Step] = []
        self.connects_us: list[int] = []
        self.congestion = self.local_address = ""
        self.mss = self.path_mtu = 0
        self._began_us = self._step_us = self._settled_us = self._end_us = 0  # each 0 until then
        self._mark: _Mark | None = None
        self._wanted: list[int] = []  # numbers of legs, the next one last

    # ---- see Transmitter ------------------------------------------------------------------------
    def on_leg_up(self, connection: TxConnection) -> None:
        """A leg was accepted."""
        super().on_leg_up(connection)
        sock = connection.sock
        if sock is None or self._step_us:
            return
        info = tcp_info(sock)
        if info is not None:
            self.connects_us.append(info.min_rtt_us)
            self.mss, self.path_mtu = info.mss, info.path_mtu
        self.congestion, self.local_address = congestion_of(sock), sock.getsockname()[0]

    def on_tick(self, now: int) -> None:
        """See Program."""
        super().on_tick(now)
        if self.outcome.done() or not self.contact.is_set():
            return
        if not self._began_us:
            self._began_us = now
        if self._end_us:
            if now - self._end_us > END_US:
                self.fail(LimitReached("the receiver did not take the end of the test stream; what reads its output?"))
        elif self._mark is not None:
            self._measure(self._mark, now)
        elif self._step_us:
            self._settle(now)
        elif self._legs() >= CONNECTS or now - self._began_us >= UP_US:
            self._plan()
            self._begin(now)

    # ---- steps ----------------------------------------------------------------------------------
    def _legs(self) -> int:
        return sum(not leg.retiring for leg in self.session.legs.values())

    def _trip_us(self) -> int:
        return min(self.connects_us, default=0)

    def _plan(self) -> None:
        steps = STEPS_LONG if self._trip_us() >= LONG_US else STEPS
        self._wanted = list(reversed(steps))

    def _settle_us(self) -> int:
        return max(SETTLE_US_MIN, min(SETTLE_TRIPS * self._trip_us(), SETTLE_US_MAX))

    def _measure_us(self) -> int:
        return max(MEASURE_US_MIN, MEASURE_TRIPS * self._trip_us())

    def _begin(self, now: int) -> None:
        """Previous states: connecting, measuring. Next: settling."""
        self._step_us, self._settled_us = now, 0
        self.session.dialling.targets[0] = self._wanted.pop()
        self.dialler.dial_soon()
        if not self.stream.flows:
            self.stream.flows = True
            self.on_input_ready()

    def _settle(self, now: int) -> None:
        """Previous state: settling. Next: measuring, when the legs have been up for long enough."""
        if not self._settled_us:
            if self._legs() == self.session.dialling.targets[0] or now - self._step_us >= UP_US:
                self._settled_us = now + self._settle_us()
        elif now >= self._settled_us:
            self._mark = _Mark(now, self.session.window.written, list(self.books.waits.booked_us), self._infos())

    def _measure(self, mark: _Mark, now: int) -> None:
        """Previous state: measuring. Next: settling, ending."""
        window = self.session.window
        mark.ticks += 1
        mark.window_ticks += window.limit_bytes == window.window_bytes and not window.room_bytes()
        for connection in self.connections.values():
            if connection.sock is not None:
                mark.leg_ticks += 1
                mark.full_ticks += self._is_full(connection.sock)
        if now - mark.at_us < self._measure_us():
            return
        self.steps.append(self._step(mark, now))
        self._mark = None
        if not self._wanted and self._still_grows():
            more = STEPS_LONG_MORE if self._trip_us() >= LONG_US else STEPS_MORE
            self._wanted = [legs for legs in reversed(more) if legs > self.session.dialling.targets[0]][-1:]
        lasts_us = self._settle_us() + self._measure_us()
        if self._wanted and now + lasts_us - self._began_us <= BUDGET_US:
            self._begin(now)
        else:
            self.end(now)

    def _is_full(self, sock: socket.socket) -> bool:
        """Whether the send buffer is as large as it may be, and holds what fits."""
        most = self._buffer_bytes
        return (
            most > 0
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= most
            and 100 * unacked_bytes(sock) >= FULL_PERCENT * most
        )

    def _still_grows(self) -> bool:
        if len(self.steps) < 2 or at_an_end(self.steps[-1]):
            return False
        return self.steps[-1].rate >= STILL_GROWING * self.steps[-2].rate

    def end(self, now: int) -> None:
        """Previous states: any. Next: ending. The stream ends as every stream does."""
        self._end_us = now
        self.stream.ended = True
        self.on_input_ready()

    def _infos(self) -> dict[socket.socket, TcpInfo]:
        found = {}
        for connection in self.connections.values():
            if connection.sock is not None and (info := tcp_info(connection.sock)) is not None:
                found[connection.sock] = info
        return found

    def _step(self, mark: _Mark, now: int) -> Step:
        elapsed_us, infos = now - mark.at_us, self._infos()
        pairs = [(mark.infos.get(sock, TcpInfo()), info) for sock, info in infos.items()]

        def gained(name: str) -> int:
            return sum(getattr(after, name) - getattr(before, name) for before, after in pairs)

        booked_us = zip(self.books.waits.booked_us, mark.booked_us, strict=True)
        shares = [max(0.0, (after - before) / elapsed_us) for after, before in booked_us]
        sent, busy_us = gained("sent"), gained("busy_us")
        moved = self.session.window.written - mark.delivered
        if shares[Wait.SINK] < MUCH and infos:  # what has been acknowledged does not jump, as what is in order does
            moved = gained("acked_bytes")
        trips_us = [info.rtt_us for info in infos.values() if info.rtt_us]
        return Step(
            legs=self._legs(),
            rate=moved * S_US // elapsed_us,
            lost_share=gained("sent_again") / sent if sent else None,
            rtt_us=sum(trips_us) // len(trips_us) if trips_us else 0,
            core_share=shares[Wait.TX_CORE],
            rx_core_share=shares[Wait.RX_CORE],
            output_share=shares[Wait.SINK],
            window_share=mark.window_ticks / mark.ticks,
            send_buffer_share=mark.full_ticks / mark.leg_ticks if mark.leg_ticks and self._buffer_bytes else None,
            receive_buffer_share=gained("receive_buffer_us") / busy_us if busy_us else None,
        )

    # ---- what was found -------------------------------------------------------------------------
    def measured(self) -> Measured:
        """All of it, as far as it came."""
        name, mtu = _interface(self.local_address)
        return Measured(
            address=str(self.config.addresses[0]),
            connects_us=tuple(sorted(self.connects_us)),
            mss=self.mss,
            path_mtu=self.path_mtu,
            interface=name,
            interface_mtu=mtu,
            interface_mbit=(self._host.speed_mbit(name) or 0) if name else 0,
            congestion=self.congestion,
            bbr=_has_bbr(),
            window_bytes=self.session.window.window_bytes,
            steps=tuple(self.steps),
        )


def _interface(address: str) -> tuple[str, int]:
    """The interface that has the address, and its MTU; "" and 0 if none has."""
    address = address.removeprefix("::ffff:")
    for name, entries in psutil.net_if_addrs().items():
        if address in {entry.address.partition("%")[0] for entry in entries}:
            stats = psutil.net_if_stats().get(name)
            return name, stats.mtu if stats is not None else 0
    return "", 0


def _has_bbr() -> bool:
    """Whether the legs may use it."""
    try:
        check_congestion("bbr")
    except UsageError:
        return False
    return True


def words_for(config: DoctorConfig, address: Address) -> TxConfig:
    """The words with which a transmitter would be started."""
    return TxConfig(
        addresses=(address,),
        bind=config.bind,
        checkphrase=config.checkphrase,
        key=config.key,
        phrase=config.phrase,
        threads=CONNECTS,
        wait_us=config.wait_us,
        regroup_us=REGROUP_US,
        outage_us=OUTAGE_US,
        verbose=config.verbose,
        name=NAME,
    )
