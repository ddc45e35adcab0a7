"""One direction of a TCP connection on a road, as a flow of packets that are as large as the flow permits.

What of TCP decides where the core's bytes are, and for how long: slow start from ten segments with an exit when
the round trip grows (HyStart), CUBIC, one reduction per round trip, a hole that keeps what lies behind it in the
receiver's kernel until it is filled, the tail loss probe, the retransmission timeout and its back-off while nothing
comes through, the receive window that grows only with what is read, the send buffer of two congestion windows,
TCP_NOTSENT_LOWAT. A packet here stands for an eighth of the congestion window, from one segment to 45: whatever a
flow's rate is, a round trip costs a few steps.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from viamillipede.config import KIB, MIB, MS_US, S_US

if TYPE_CHECKING:
    from tests.sim.roads import Lane, Road

SEGMENT = 1448  # bytes of payload
SEGMENTS_MOST = 45  # in one packet of ours, as the kernel's offload has it
FIRST_SEGMENTS = 10
CUBIC_C, CUBIC_BETA = 0.4, 0.7
RENO_SHARE = 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA)  # segments per round trip at which CUBIC is never slower
RTO_US_MIN = 200 * MS_US
SEND_BYTES_MIN, SEND_BYTES_MAX = 87 * KIB, 4 * MIB
RECEIVE_BYTES_MIN, RECEIVE_BYTES_MAX = 64 * KIB, 32 * MIB
HYSTART_SAMPLES = 2  # as the kernel looks at eight segments


class Packet:
    """Some segments in a row. `order`: of its latest transmission among all of its flow."""

    __slots__ = ("arrived", "data", "order", "sends", "sent_us", "size", "start")

    def __init__(self, start: int, size: int, data: bytes) -> None:
        self.start, self.size, self.data = start, size, data
        self.arrived = False
        self.sends = self.order = self.sent_us = 0


class Flow:
    """Sender and receiver of one direction. `on_readable` and `on_writable` are called as poll would tell."""

    def __init__(self, road: "Road", lane: "Lane", back: "Lane") -> None:
        self.road, self._lane = road, lane
        self._clock = road.clock
        self._back_us = back.delay_us
        self.on_readable: Callable[[], None] = lambda: None
        self.on_writable: Callable[[], None] = lambda: None
        self._low_water = 64 * KIB
        self.cut = False  # torn down: nothing moves any more
        self.ending = self.ended = False  # the sender has closed; the receiver knows
        # The sender.
        self._unsent = bytearray()
        self._blocked = False  # the socket took less than it was offered
        self._next = self._una = 0
        self._out: dict[int, Packet] = {}  # by order: on their way
        self._lost: list[Packet] = []  # to be sent again, by position
        self.in_flight = 0  # bytes
        self._order = 0
        self.cwnd = float(FIRST_SEGMENTS * SEGMENT)
        self._ssthresh = float("inf")
        self._limited = False  # it was the congestion window that stopped us
        self._recovery = 0  # transmissions before this one tell of a loss that was reacted to
        self._after_timeout = False
        self._w_max = self._k_s = self._w_reno = 0.0
        self._epoch_us: int | None = None
        self._round_end = self._round_samples = self._round_us = 0
        self.srtt_us = self._rttvar_us = self.min_rtt_us = 0
        self._backoff = 0
        self._probed = False
        self._deadline_us = 0
        self._timer_set = False
        self._sent_us = self._clock.now_us
        self._edge = RECEIVE_BYTES_MIN  # up to here rx's kernel takes bytes, as we know
        self.sent_again = self.timeouts = 0
        self._cap_us = 0  # when what the cap holds back has passed it
        # The receiver.
        self._here = bytearray()
        self._due = 0
        self._early: dict[int, Packet] = {}
        self._read = 0
        self._told_edge = RECEIVE_BYTES_MIN
        self._receive_bytes = RECEIVE_BYTES_MIN
        self._copied, self._copied_us = 0, self._clock.now_us

    # ---- the sender's socket --------------------------------------------------------------------
    def send(self, data: memoryview | bytes, may_corrupt: bool = False) -> int:
        """How many bytes the socket took."""
        if self.cut or self.ending:
            return 0
        room = min(self._send_bytes() - self.unacked_bytes(), self._low_water + 64 * KIB - len(self._unsent))
        if len(self._unsent) >= self._low_water:
            room = 0
        count = max(0, min(len(data), room))
        self._blocked = count < len(data)
        if count:
            self._unsent += data[:count]
            self._transmit()
        return count

    def limit_unsent(self, count: int) -> None:
        """TCP_NOTSENT_LOWAT."""
        self._low_water = count

    def _send_bytes(self) -> int:
        return min(max(SEND_BYTES_MIN, int(2 * self.cwnd)), SEND_BYTES_MAX)

    def writable(self) -> bool:
        """As poll tells: half of what may wait unsent has left, and a third of the buffer is free."""
        return 2 * len(self._unsent) < self._low_water and 3 * self.unacked_bytes() < 2 * self._send_bytes()

    def unacked_bytes(self) -> int:
        """What the sender's kernel still holds."""
        return self._next - self._una + len(self._unsent)

    def abort(self) -> None:
        """The sender closes with a reset, which follows what is on the road."""
        if not self.ending:
            self.ending = True
            self._unsent.clear()
            self._lost.clear()
            self._clock.after(self._lane.wait_us() + self._lane.delay_us, self._tell_end)

    def _tell_end(self) -> None:
        if not self.cut and not self.road.down:
            self.ended = True
            self.on_readable()

    # ---- the way there --------------------------------------------------------------------------
    def _waiting(self) -> int:
        return len(self._unsent)

    def _take(self, size: int) -> bytes:
        data = bytes(self._unsent[:size])
        del self._unsent[:size]
        return data

    def _transmit(self) -> None:
        now_us = self._clock.now_us
        if not self._out and now_us - self._sent_us > (rto_us := self._rto_us()):  # slow start after idleness
            halvings = min(int((now_us - self._sent_us) // rto_us), 30)
            self.cwnd = min(self.cwnd, max(self.cwnd / 2**halvings, FIRST_SEGMENTS * SEGMENT))
        self._limited = False
        while not self.cut and not self.ending:
            if self._lost:
                packet = self._lost[0]
                if not packet.arrived and self.in_flight and self.in_flight + packet.size > self.cwnd:
                    self._limited = True
                    return
                del self._lost[0]
                if not packet.arrived:  # else it had only looked lost
                    self._launch(packet)
                continue
            most = SEGMENT * min(max(int(self.cwnd / (8 * SEGMENT)), 1), SEGMENTS_MOST)
            size = min(most, waiting := self._waiting(), self._edge - self._next)
            if size <= 0 or (size < min(most, waiting) and self._out):
                return
            if self.in_flight and self.in_flight + size > self.cwnd:
                self._limited = True
                return
            packet = Packet(self._next, size, self._take(size))
            self._next += size
            self._launch(packet)

    def _launch(self, packet: Packet) -> None:
        now_us = self._sent_us = packet.sent_us = self._clock.now_us
        if not self._out:
            self._deadline_us = now_us + self._patience_us()
        self._order += 1
        packet.order = self._order
        packet.sends += 1
        self.sent_again += packet.size if packet.sends > 1 else 0
        self._out[self._order] = packet
        self.in_flight += packet.size
        if self.road.cap:
            through_us = max(self._cap_us, now_us) + self._lane.wire_bytes(packet.size) * S_US // self.road.cap
            if through_us - now_us <= self.road.cap_queue_us:
                self._cap_us = through_us
                self._clock.after(through_us - now_us, partial(self._enter, packet, packet.order))
        else:
            self._enter(packet, packet.order)
        self._set_timer()

    def _enter(self, packet: Packet, order: int) -> None:
        delay_us = self._lane.carry(packet.size)
        if delay_us is not None:
            self._clock.after(delay_us, partial(self._arrive, packet, order))

    # ---- the receiver ---------------------------------------------------------------------------
    def _arrive(self, packet: Packet, order: int) -> None:
        if self.road.down or self.cut:
            return
        if not packet.arrived:
            packet.arrived = True
            self._early[packet.start] = packet
            before = self._due
            while (due := self._early.pop(self._due, None)) is not None:
                self._keep(due)
                self._due += due.size
            if self._due > before:
                self.on_readable()
                if self.cut:
                    return
        self._told_edge = max(self._told_edge, self._read + self._receive_bytes)
        self._clock.after(self._back_us, partial(self._on_ack, packet, order, self._due, self._told_edge))

    def _keep(self, packet: Packet) -> None:
        self._here += packet.data
        packet.data = b""

    def receive(self, count_max: int) -> bytes:
        """Up to so many bytes; b"" when there are none: see `ended`."""
        data = bytes(self._here[:count_max])
        del self._here[:count_max]
        self._on_read(len(data))
        return data

    def _on_read(self, count: int) -> None:
        self._read += count
        self._copied += count
        now_us = self._clock.now_us
        if now_us - self._copied_us >= self._lane.delay_us + self._back_us:
            self._receive_bytes = max(self._receive_bytes, min(4 * self._copied, RECEIVE_BYTES_MAX))
            self._copied, self._copied_us = 0, now_us
        edge = self._read + self._receive_bytes
        if edge - self._due >= 2 * (self._told_edge - self._due) and edge > self._told_edge:
            self._told_edge = edge
            self._clock.after(self._back_us, partial(self._on_edge, edge))

    def readable_bytes(self) -> int:
        """What the receiver's kernel holds in order."""
        return len(self._here)

    # ---- the way back ---------------------------------------------------------------------------
    def _on_edge(self, edge: int) -> None:
        if self.cut or self.ending:
            return
        if self.road.down:  # the sender's probe of the closed window finds out
            self._clock.after(RTO_US_MIN, partial(self._on_edge, edge))
            return
        self._edge = max(self._edge, edge)
        self._transmit()
        self._tell_writable()

    def _on_ack(self, packet: Packet, order: int, due: int, edge: int) -> None:
        if self.road.down or self.cut or self.ending:
            return
        now_us = self._clock.now_us
        self._una = max(self._una, due)
        self._edge = max(self._edge, edge)
        if order in self._out:
            if packet.sends == 1:
                self._on_sample(now_us - packet.sent_us)
            was_in_flight, acked = self.in_flight, 0
            lost: list[Packet] = []
            while True:  # nothing overtakes on a road: what was sent before and is not there is lost
                first = next(iter(self._out))
                other = self._out.pop(first)
                self.in_flight -= other.size
                if other.arrived:
                    acked += other.size
                else:
                    lost.append(other)
                if first == order:
                    break
            self._backoff, self._probed = 0, False
            self._deadline_us = now_us + self._patience_us()
            if lost:
                self._on_lost(lost)
            elif order >= self._recovery or self._after_timeout:
                self._grow(acked, was_in_flight, now_us)
        self._transmit()
        self._tell_writable()

    def _tell_writable(self) -> None:
        if self._blocked and not self.cut and self.writable():
            self._blocked = False
            self.on_writable()

    def _on_sample(self, rtt_us: int) -> None:
        if not self.srtt_us:
            self.srtt_us = self.min_rtt_us = rtt_us
            self._rttvar_us = rtt_us // 2
        self._rttvar_us += (abs(self.srtt_us - rtt_us) - self._rttvar_us) // 4
        self.srtt_us += (rtt_us - self.srtt_us) // 8
        self.min_rtt_us = min(self.min_rtt_us, rtt_us)
        if self.cwnd < self._ssthresh:  # HyStart: the least of a round's first samples tells whether a queue grows
            if self._una >= self._round_end:
                self._round_end, self._round_samples, self._round_us = self._next, 0, rtt_us
            self._round_samples += 1
            self._round_us = min(self._round_us, rtt_us)
            grown_us = min(max(self.min_rtt_us // 8, 4 * MS_US), 16 * MS_US)
            if self._round_samples == HYSTART_SAMPLES and self.cwnd >= 16 * SEGMENT:
                if self._round_us >= self.min_rtt_us + grown_us:
                    self._ssthresh = self.cwnd

    # ---- congestion -----------------------------------------------------------------------------
    def _grow(self, acked: int, was_in_flight: int, now_us: int) -> None:
        if self.cwnd < self._ssthresh:
            if 2 * was_in_flight >= self.cwnd:
                self.cwnd += min(acked, self.cwnd)  # a packet of ours may be larger than the window after a timeout
            return
        if not self._limited:
            return
        cwnd = self.cwnd / SEGMENT
        if self._epoch_us is None:
            self._epoch_us = now_us
            self._w_max = max(self._w_max, cwnd)
            self._k_s = ((self._w_max - cwnd) / CUBIC_C) ** (1 / 3)
            self._w_reno = cwnd
        time_s = (now_us - self._epoch_us + self.srtt_us) / S_US
        target = min(self._w_max + CUBIC_C * (time_s - self._k_s) ** 3, 1.5 * cwnd)
        self._w_reno += RENO_SHARE * acked / self.cwnd
        if target > cwnd:
            self.cwnd += (target - cwnd) / cwnd * acked
        self.cwnd = max(self.cwnd, self._w_reno * SEGMENT)

    def _on_lost(self, lost: list[Packet]) -> None:
        self._lost = sorted(self._lost + lost, key=lambda packet: packet.start)
        if max(packet.order for packet in lost) >= self._recovery:
            self._reduce()
            self._after_timeout = False

    def _reduce(self) -> None:
        """Once per round trip: what is in flight now tells nothing new."""
        self._recovery = self._order + 1
        cwnd = self.cwnd / SEGMENT
        self._w_max = cwnd * (1 + CUBIC_BETA) / 2 if cwnd < self._w_max else cwnd
        self._ssthresh = self.cwnd = max(self.cwnd * CUBIC_BETA, 2.0 * SEGMENT)
        self._epoch_us = None

    # ---- time -----------------------------------------------------------------------------------
    def _rto_us(self) -> int:
        base_us = self.srtt_us + max(4 * self._rttvar_us, RTO_US_MIN) if self.srtt_us else S_US
        return min(base_us << min(self._backoff, 10), self.road.plan.rto_us_max)

    def _patience_us(self) -> int:
        """Until the tail loss probe; until the timeout after that."""
        if self._probed or self._backoff or not self.srtt_us:
            return self._rto_us()
        return min(2 * self.srtt_us + (2 * MS_US if len(self._out) > 1 else RTO_US_MIN), self._rto_us())

    def _set_timer(self) -> None:
        if not self._timer_set:
            self._timer_set = True
            self._clock.after(max(1, self._deadline_us - self._clock.now_us), self._on_timer)

    def _on_timer(self) -> None:
        self._timer_set = False
        if self.cut or self.ending or not self._out:
            return
        now_us = self._clock.now_us
        if now_us >= self._deadline_us:
            if self._patience_us() < self._rto_us() and not self._probed:
                self._probed = True
                _, packet = self._out.popitem()
                self.in_flight -= packet.size
            else:
                packet = self._on_timeout()
            self._launch(packet)
            self._deadline_us = now_us + self._patience_us()
        self._set_timer()

    def _on_timeout(self) -> Packet:
        """Everything on the way is lost. The packet to try with."""
        self.timeouts += 1
        if not self._backoff:
            self._reduce()
        self._backoff += 1
        self._after_timeout = True
        self.cwnd = float(SEGMENT)
        self._lost = sorted([*self._lost, *self._out.values()], key=lambda packet: packet.start)
        self._out.clear()
        self.in_flight = 0
        return self._lost.pop(0)
