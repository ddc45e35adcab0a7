"""What a person is told: what is waited for, the closing line, and the dump that SIGUSR1 asks for."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from viamillipede.aio.clock import now_us
from viamillipede.aio.log import EVENT, WARNING, Log
from viamillipede.aio.sockets import rtt_us
from viamillipede.aio.waiting import rx_waits_for, tx_waits_for
from viamillipede.config import KIB, S_US, Address
from viamillipede.errors import LimitReached, NoContact, PeerLost
from viamillipede.protocol.tx_leg import TxLeg
from viamillipede.units import format_bytes, format_duration_us, format_rate

if TYPE_CHECKING:
    from viamillipede.aio.rx import Receiver
    from viamillipede.aio.tx import Transmitter


IDLE_TOLD_US = 3 * S_US  # a shorter pause is nobody's concern
WAITING_TOLD_US = 2 * S_US  # so long may the first contact take before tx says why


class ContactNews:
    """Why there is no first contact yet: once for everybody, each change for those who want events.

    wait_us: how long it is waited for, None: for ever. other: whom.
    """

    def __init__(self, log: Log, wait_us: int | None, other: str) -> None:
        self._log, self._wait_us, self._other = log, wait_us, other
        self._told = False
        self._reasons = ""

    def tell(self, failures: list[str], waited_us: int) -> None:
        """`failures`: a line for each address whose latest attempt failed. Microseconds since the start."""
        reasons = "; ".join(failures)
        wait_us = self._wait_us
        if not self._told and waited_us >= WAITING_TOLD_US and (wait_us is None or wait_us > WAITING_TOLD_US):
            self._told = True
            limit = "" if wait_us is None else f"up to {wait_us / S_US:.10g} s "
            self._log.say(WARNING, f"waiting {limit}for a {self._other}: {reasons or 'no answer so far'}")
        elif reasons and reasons != self._reasons:
            self._log.say(EVENT, f"no {self._other} yet: {reasons}")
        self._reasons = reasons


def since(begin_us: int) -> str:
    """How long ago that was."""
    return format_duration_us(now_us() - begin_us)


def plural(count: int, noun: str) -> str:
    """`1 leg`, `2 legs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _summary(count: int, began_us: int, end_us: int | None = None) -> str:
    """`count` bytes since `began_us`, until now unless it ended before."""
    elapsed_us = max(1, (end_us or now_us()) - began_us)
    exactly = f" ({count} bytes)" if count >= KIB else ""  # else the other figure is not rounded
    rate = format_rate(count * S_US / elapsed_us)
    return f"{format_bytes(count)}{exactly} in {format_duration_us(elapsed_us)}, {rate}"


def _closing(program: Transmitter | Receiver, count: int, status: str) -> str:
    """How a closing line begins. Waiting in vain for a peer that is gone says nothing about the rate."""
    gone = isinstance(program.failure(), PeerLost) and program.meter.progress_us
    summary = _summary(count, program.contact_us or program.began_us, program.meter.progress_us if gone else None)
    return f"{status}, {summary}" if status else summary


def closing_tx(program: Transmitter, status: str) -> str:
    """tx's last line; `status`: "" when complete. "" if there was nobody: why not is said, and is all there is."""
    if status and not program.contact_us and not program.strangers:
        return ""
    session = program.session
    window = session.window
    parts = [
        _closing(program, window.written if status else window.cut_end, status),
        plural(session.legs_most, "leg"),
        plural(session.restarts, "restart"),
        f"{plural(window.retransmitted_frames, 'frame')} retransmitted ({format_bytes(window.retransmitted_bytes)})",
    ]
    if session.hedges:
        parts.append(f"{session.hedges} hedged")
    if session.resends:
        parts.append(f"{session.resends} asked for again")
    if program.config.chaos:
        parts.append(plural(program.chaos.faults, "chaos fault"))
    if program.strangers:
        parts.append(f"{plural(program.strangers, 'connection')} refused")
    if program.cipher:
        parts.append(f"encrypted with {program.cipher}")
    if session.digest.own is not None and not status:
        parts.append(str(session.digest.own))
    return ", ".join(parts) + _shares(program) + _not_reached(program) + _verdict(program)


def _shares(program: Transmitter) -> str:
    """How much was sent to each of several addresses."""
    states = program.session.book.states
    if len(states) < 2:
        return ""
    return "; sent to " + ", ".join(f"{state.address} {format_bytes(state.bytes_sent)}" for state in states)


def _came_from(program: Receiver) -> str:
    """How much came from each of several hosts."""
    if len(program.moved_of) < 2:
        return ""
    return "; came from " + ", ".join(f"{host} {format_bytes(count)}" for host, count in program.moved_of.items())


def _verdict(program: Transmitter | Receiver) -> str:
    if isinstance(program.failure(), PeerLost):
        return ""  # the time that was waited for it in vain would drown the rest
    verdict = program.books.verdict()
    return f"\n{verdict}" if verdict else ""


def _paths(program: Transmitter) -> list[str]:
    """A line for each address: what it has carried, its legs, and why it has so many."""
    session, lines = program.session, []
    for rank, state in enumerate(session.book.states):
        up = sum(leg.rank == rank for leg in session.legs.values())
        why = f"; {session.tuners[rank].why}" if session.tuners else ""
        sent, wanted = format_bytes(state.bytes_sent), plural(session.dialling.targets[rank], "leg")
        lines.append(f"  address {state.address}: {sent} sent, {up} of {wanted} up{why}")
    return lines


def _hosts(program: Receiver) -> list[str]:
    """A line for each of several hosts that legs came from."""
    moved, up = dict(program.moved_of), Counter(each.peer.host for each in program.connections.values())
    for connection in program.connections.values():
        moved[connection.peer.host] += connection.leg.bytes_received
    lines = [f"  address {host}: {format_bytes(moved[host])} received, {plural(up[host], 'leg')} up" for host in moved]
    return lines if len(lines) > 1 else []


def _idle(program: Transmitter | Receiver, now: int) -> str:
    """For how long, where that is worth a word and not said already."""
    idle_us = now - (program.meter.progress_us or program.contact_us or now)
    together = program.presence.alone_since_us is None
    return f"; nothing has moved for {format_duration_us(idle_us)}" if together and idle_us >= IDLE_TOLD_US else ""


def _not_reached(program: Transmitter | Receiver) -> str:
    """The addresses that did not work, unless the failure says so itself."""
    said = isinstance(program.failure(), NoContact | LimitReached)
    failures = [] if said else program.session.book.failures()
    return f"; not reached: {'; '.join(failures)}" if failures else ""


def closing_rx(program: Receiver, status: str) -> str:
    """rx's last line; see `closing_tx`."""
    if status and not program.contact_us and not program.strangers:
        return ""
    session = program.session
    reassembly = session.reassembly
    parts = [
        _closing(program, reassembly.written, status),
        plural(session.legs_most, "leg"),
        plural(session.restarts, "restart"),
        f"{format_bytes(reassembly.duplicate_bytes)} retransmitted in vain",
    ]
    if session.checksum:
        parts.append(f"{reassembly.corrupted} corrupted")
    if program.strangers:
        parts.append(f"{plural(program.strangers, 'connection')} refused")
    if program.cipher:
        parts.append(f"encrypted with {program.cipher}")
    if session.digest.own is not None and not status:
        parts.append(str(session.digest.own))
    return ", ".join(parts) + _came_from(program) + _not_reached(program) + _verdict(program)


def _head(program: Transmitter | Receiver, role: str, count: int) -> str:
    """A dump's first line, by which it can be told from the next one."""
    clock, summary = time.strftime("%H:%M:%S"), _summary(count, program.began_us)
    now = format_rate(program.meter.rate) + (f", encrypted with {program.cipher}" if program.cipher else "")
    return f"viamillipede {role}: pid {os.getpid()} at {clock}, {summary}, now {now}"


def _process() -> str:
    import psutil  # only a dump needs it: 20 ms that no transfer has to wait for

    try:
        process = psutil.Process(os.getpid())
        cpu = process.cpu_times()
        memory = process.memory_info().rss
        descriptors = process.num_fds()
    except psutil.Error as error:
        return f"process: no figures, {error}"
    return (
        f"process: {cpu.user:.1f} s user, {cpu.system:.1f} s system, {format_bytes(memory)} resident, "
        f"{descriptors} descriptors"
    )


def _width(addresses: Iterable[Address]) -> int:
    """Of a column that has them all."""
    return max(len(text) for text in ("255.255.255.255:65535", *map(str, addresses)))


def _state(leg: TxLeg) -> str:
    if leg.doubted:
        return "mute"  # nothing was heard of it for a while
    return "ends" if leg.retiring else "busy" if leg.busy else "idle"


def dump_tx(program: Transmitter) -> str:
    """All that tx knows, a line per leg."""
    session, window, now = program.session, program.session.window, now_us()
    waits = tx_waits_for(program, now)
    in_use = window.head - window.written
    width = _width(connection.address for connection in program.connections.values())
    lines = [
        _head(program, "tx", window.written),
        f"  window {format_bytes(in_use)} of {format_bytes(window.limit_bytes)} (at most "
        f"{format_bytes(window.window_bytes)}), {window.frames_in_flight()} frames in flight, "
        f"{window.retransmitted_frames} retransmitted, {session.hedges} hedged, {plural(session.restarts, 'restart')}",
        f"  waiting for: {waits}{_idle(program, now)}",
        *([f"  {program.books.verdict()}"] if program.books.verdict() else []),
        *_paths(program),
        *(f"  not reached: {failure}" for failure in session.book.failures()),
        f"  {_process()}",
        f"   leg  {'address':{width}}  state  frames        bytes         rate       rtt   resent  restarts",
    ]
    for connection in sorted(program.connections.values(), key=lambda each: each.leg):
        state = session.legs.get(connection.leg)
        address = f"{connection.address!s:{width}}"
        if state is None or connection.sock is None:
            lines.append(f"  {connection.leg:4}  {address}  down   {'':56} {connection.restarts:9}")
            continue
        rate = state.bytes_sent * S_US // max(1, now - state.since_us)
        lines.append(
            f"  {connection.leg:4}  {address}  {_state(state):5}"
            f" {window.carries(connection.leg):7} {format_bytes(state.bytes_sent):>12} {format_rate(rate):>12}"
            f" {format_duration_us(rtt_us(connection.sock)[0]):>9} {state.retransmitted:8} {connection.restarts:9}"
        )
    return "\n".join(lines) + "\n"


def dump_rx(program: Receiver) -> str:
    """All that rx knows, a line per leg."""
    session, reassembly, now = program.session, program.session.reassembly, now_us()
    waits = rx_waits_for(program, now)
    held = sum(end - start for start, end in reassembly.arrived)
    width = _width(connection.peer for connection in program.connections.values())
    lines = [
        _head(program, "rx", reassembly.written),
        f"  reorder memory {format_bytes(reassembly.memory_bytes())} of at most "
        f"{format_bytes(reassembly.window_bytes)}, {plural(held, 'frame')} held; "
        f"{plural(session.waiting_legs.asides, 'frame')} read aside so far",
        f"  {format_bytes(reassembly.direct_bytes)} moved without a copy, "
        f"{format_bytes(reassembly.duplicate_bytes)} retransmitted in vain, "
        f"{plural(session.restarts, 'restart')}, {plural(program.strangers, 'connection')} refused",
        f"  waiting for: {waits}{_idle(program, now)}",
        *([f"  {program.books.verdict()}"] if program.books.verdict() else []),
        *_hosts(program),
        *(f"  not reached: {failure}" for failure in session.book.failures()),
        f"  {_process()}",
        f"   leg  {'address':{width}}  state  frame        bytes         rate       rtt    in vain  restarts",
    ]
    for connection in sorted(program.connections.values(), key=lambda connection: connection.leg.number):
        leg = connection.leg
        state = leg.plan.value if leg.copy else "idle"
        seq = leg.copy.header.seq if leg.copy else ""
        rate = leg.bytes_received * S_US // max(1, now - leg.since_us)
        lines.append(
            f"  {leg.number:4}  {connection.peer!s:{width}}  {state:7} {seq:5} {format_bytes(leg.bytes_received):>11}"
            f" {format_rate(rate):>12} {format_duration_us(rtt_us(connection.sock)[0]):>9}"
            f" {format_bytes(leg.bytes_discarded):>10} {session.times_up[leg.number] - 1:9}"
        )
    return "\n".join(lines) + "\n"
