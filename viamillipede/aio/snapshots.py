"""How a program stands, as its views want it: viamillipede.views.snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from viamillipede.aio.clock import now_us
from viamillipede.aio.sockets import rtt_us, segments_resent
from viamillipede.aio.waiting import STALL_US, is_stall, rx_waits_for, tx_waits_for
from viamillipede.config import S_US
from viamillipede.errors import Exit, Failure
from viamillipede.views.snapshot import Leg, Path, Snapshot

if TYPE_CHECKING:
    from viamillipede.aio.program import Program
    from viamillipede.aio.rx import Receiver
    from viamillipede.aio.tx import Transmitter

RATE_OVER_US = 900_000  # at least: below that a rate would only flicker


class Rates:
    """Rates of counts that are looked at now and then: of legs, of paths."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[int, int, int]] = {}  # key -> count and time of the sample, rate

    def rate(self, key: object, count: int, now: int) -> int:
        """Per second, over the last RATE_OVER_US at least. A count that shrank began anew."""
        before, since_us, rate = self._seen.get(key, (count, now, 0))
        if key not in self._seen or count < before:
            self._seen[key] = (count, now, 0)
            return 0
        if now - since_us >= RATE_OVER_US:
            rate = (count - before) * S_US // (now - since_us)
            self._seen[key] = (count, now, rate)
        return rate


def _state(program: Program) -> tuple[str, int | None, str]:
    """State, exit status and reason."""
    outcome = program.outcome
    if not outcome.done():
        return ("running" if program.presence.contacted else "waiting"), None, ""
    failure = None if outcome.cancelled() else outcome.exception()
    if failure is None:
        return "complete", int(Exit.COMPLETE), ""
    status = failure.exit_status if isinstance(failure, Failure) else Exit.UNEXPECTED
    return "failed", int(status), str(failure).partition("\n")[0]


def _idle_us(program: Transmitter | Receiver, now: int) -> int:
    return now - (program.meter.progress_us or program.contact_us or program.began_us)


def _waiting(program: Transmitter | Receiver, words: str) -> str:
    """The same as one of the few beginnings that are promised: input, output, network and a colon."""
    if program.outcome.done():
        return ""
    if program.presence.alone_since_us is not None:
        return f"network: {'a connection' if program.presence.contacted else 'the first contact'}"
    if words.startswith("output"):
        return "output"
    return words if words == "input" or words.startswith("network: ") else f"network: {words}"


def _is_stalled(program: Transmitter | Receiver, words: str, now: int) -> bool:
    """Whether it is time to worry. That the first thing after a long pause is under way is no reason."""
    running = program.presence.contacted and not program.outcome.done()
    return running and is_stall(_idle_us(program, now), lambda: words) and program.books.network_us(now) >= STALL_US


def tx_snapshot(program: Transmitter) -> Snapshot:
    """How tx stands."""
    session, window, now = program.session, program.session.window, now_us()
    elapsed_us = now - (program.contact_us or program.began_us)
    state, status, reason = _state(program)
    waiting = tx_waits_for(program, now)
    own = session.digest.own
    moved = window.cut_end if state == "complete" else window.written  # that all was accepted is said without a number
    return Snapshot(
        role="tx", pid=os.getpid(), session=session.session.hex(), name=program.config.name,
        peer=next((str(path.address) for path in session.book.states if path.worked), ""),
        elapsed_us=elapsed_us, contacted=session.presence.contacted,
        moved_bytes=moved, read_bytes=window.head, size_bytes=program.config.size_bytes,
        rate=program.meter.rate, rate_average=moved * S_US // max(1, elapsed_us),
        window_used_bytes=window.head - moved, window_bytes=window.limit_bytes,
        legs_up=len(session.legs), restarts=session.restarts,
        retransmitted_frames=window.retransmitted_frames, retransmitted_bytes=window.retransmitted_bytes,
        hedges=session.hedges, corrupted=0, refused=program.strangers,
        waiting=_waiting(program, waiting), idle_us=_idle_us(program, now),
        stalled=_is_stalled(program, waiting, now), waits=program.books.shares(),
        verdict=program.books.verdict(), cpu_share=program.books.cpu_share,
        state=state, exit_status=status, reason=reason,
        cipher=program.cipher, digest=str(own) if own is not None and state == "complete" else "",
        legs=tuple(_tx_legs(program, now)), paths=tuple(_tx_paths(program, now)),
    )  # fmt: skip


def _tx_legs(program: Transmitter, now: int) -> Iterable[Leg]:
    session, rates = program.session, program.rates
    for number, connection in sorted(program.connections.items()):
        leg, address = session.legs.get(number), str(connection.address)
        if leg is None or connection.sock is None:
            yield Leg(number, 0, address, "down", 0, 0, 0, 0, 0, 0, connection.restarts)
            continue
        state = "mute" if leg.doubted else "ends" if leg.retiring else "busy" if leg.busy else "idle"
        yield Leg(
            number, leg.rank, address, state, leg.bytes_sent, rates.rate(("leg", number), leg.acked_bytes, now),
            rtt_us(connection.sock)[0], segments_resent(connection.sock), leg.backlog_bytes(), leg.retransmitted,
            connection.restarts,
        )  # fmt: skip


def _tx_paths(program: Transmitter, now: int) -> Iterable[Path]:
    session = program.session
    failures = dict(failure.partition(": ")[::2] for failure in session.book.failures())
    for rank, state in enumerate(session.book.states):
        address = str(state.address)
        up = sum(leg.rank == rank for leg in session.legs.values())
        why = failures.get(address) or (session.tuners[rank].why if session.tuners else "")
        rate = program.rates.rate(("path", rank), state.bytes_sent, now)
        yield Path(address, state.bytes_sent, rate, up, session.dialling.targets[rank], why)


def rx_snapshot(program: Receiver) -> Snapshot:
    """How rx stands."""
    session, reassembly, now = program.session, program.session.reassembly, now_us()
    elapsed_us = now - (program.contact_us or program.began_us)
    state, status, reason = _state(program)
    waiting = rx_waits_for(program, now)
    own, peers = session.digest.own, sorted({leg.peer.host for leg in program.connections.values()} or program.moved_of)
    return Snapshot(
        role="rx", pid=os.getpid(), session=(session.session or b"").hex(), name=session.name,
        peer=", ".join(peers), elapsed_us=elapsed_us, contacted=session.presence.contacted,
        moved_bytes=reassembly.written, read_bytes=reassembly.written, size_bytes=program.config.size_bytes,
        rate=program.meter.rate, rate_average=reassembly.written * S_US // max(1, elapsed_us),
        window_used_bytes=reassembly.ready_end() - reassembly.written, window_bytes=reassembly.window_bytes,
        legs_up=len(session.legs), restarts=session.restarts, retransmitted_frames=session.resends,
        retransmitted_bytes=reassembly.duplicate_bytes, hedges=0, corrupted=reassembly.corrupted,
        refused=program.strangers,
        waiting=_waiting(program, waiting), idle_us=_idle_us(program, now),
        stalled=_is_stalled(program, waiting, now), waits=program.books.shares(),
        verdict=program.books.verdict(), cpu_share=program.books.cpu_share,
        state=state, exit_status=status, reason=reason,
        cipher=program.cipher, digest=str(own) if own is not None and state == "complete" else "",
        legs=tuple(_rx_legs(program, now)), paths=tuple(_rx_paths(program, now)),
    )  # fmt: skip


def _rx_legs(program: Receiver, now: int) -> Iterable[Leg]:
    session, rates = program.session, program.rates
    hosts = {host: rank for rank, host in enumerate(program.moved_of)}
    for connection in sorted(program.connections.values(), key=lambda each: each.leg.number):
        leg = connection.leg
        rank = leg.rank if session.dials else hosts[connection.peer.host]
        yield Leg(
            leg.number, rank, str(connection.peer), leg.plan.value if leg.copy else "idle", leg.bytes_received,
            rates.rate(("leg", leg.key), leg.bytes_received, now), rtt_us(connection.sock)[0],
            segments_resent(connection.sock), 0, leg.bytes_discarded, session.times_up[leg.number] - 1,
        )  # fmt: skip


def _rx_paths(program: Receiver, now: int) -> Iterable[Path]:
    """The hosts that legs came from."""
    moved = dict(program.moved_of)
    up = dict.fromkeys(moved, 0)
    for connection in program.connections.values():
        moved[connection.peer.host] += connection.leg.bytes_received
        up[connection.peer.host] += 1
    for host, count in moved.items():
        yield Path(host, count, program.rates.rate(("path", host), count, now), up[host], 0)
