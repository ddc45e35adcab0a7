"""The transmitter's session: joins window, scheduler, presence and addresses; decides, does nothing.

The shell reports what happened (an answer, bytes from rx, bytes taken by a socket, input, time) and
asks what to do (`next_assignment`, `input_view`, `on_timer`). No call blocks, waits or looks at a
clock. Sequence of a leg, as the core sees it:

    on_answer -> ( on_idle -> next_assignment -> on_progress* )* -> on_leg_lost

How the session ends: `done` after rx said that its output accepted everything; otherwise an
`errors.Failure` is raised by the call that noticed.
"""

from collections.abc import Callable

from viamillipede.config import (
    CHECKPHRASE_BYTES,
    HEARTBEAT_US,
    LEG_DOUBTED_US,
    LEG_SILENT_US,
    LEG_STUCK_US,
    S_US,
    THREADS_AUTO,
    THREADS_MAX,
    USEFUL_US,
    WINDOW_STALL_PERIOD_US,
    WINDOW_STALL_US,
    TxConfig,
)
from viamillipede.errors import FrameError, NoContact, PeerLost, RemoteFailed, SessionRefused
from viamillipede.protocol import hedging
from viamillipede.protocol.address_book import AddressBook
from viamillipede.protocol.dialling import Dialling
from viamillipede.protocol.presence import Absence, Presence
from viamillipede.protocol.scheduler import Scheduler
from viamillipede.protocol.send_window import Frame, SendWindow
from viamillipede.protocol.tuner import Tuner
from viamillipede.protocol.tx_leg import TxLeg
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    HEADER_BYTES,
    VERSION,
    Ack,
    Answer,
    Greeting,
    Header,
    Kind,
    Verdict,
    Waiting,
    decode_ack_untrusted,
    decode_reason,
)

_REFUSALS = {
    Verdict.VERSION: f"the receiver speaks another version of the protocol than ours, {VERSION}",
    Verdict.CHECKPHRASE: "the receiver has another checkphrase",
    Verdict.BUSY: "the receiver is busy with another stream",
    Verdict.MALFORMED: "the receiver found our greeting malformed",
}


RETIRED = "not needed any more"


class TxSession:
    """One stream and the legs that carry it."""

    def __init__(self, config: TxConfig, session: bytes, now_us: int) -> None:
        self._config, self._session = config, session
        self.book, count = AddressBook(config.addresses), len(config.addresses)
        self.presence = Presence(config.wait_us, config.regroup_us, config.outage_us, now_us)
        threads = max(config.threads, count)
        legs_of = [threads // count + (rank < threads % count) for rank in range(count)]
        self.tuners: list[Tuner] = []
        if config.threads == THREADS_AUTO:
            self.tuners = [Tuner(max(1, THREADS_MAX // count), now_us) for _ in range(count)]
            legs_of = [tuner.legs for tuner in self.tuners]
        self.dialling = Dialling(self.book, legs_of, moving=not self.tuners)
        self.scheduler = Scheduler(config.addresses, config.limit_bytes)
        self._delivered = [0] * count  # bytes that arrived, by rank
        self.window = SendWindow(config.window_bytes, config.frame_bytes, config.checksum)
        self.legs: dict[int, TxLeg] = {}
        self.legs_most = self.restarts = self.hedges = self.resends = 0
        self.done = False
        self.checksum = config.checksum
        self.rx_waits_output = False
        self._receiver = bytes(8)
        self._known: set[int] = set()  # legs that were up once
        self._refused: dict[int, str] = {}  # rank -> why it refused for good
        self._starving_since_us = now_us
        self._full_since_us: int | None = None
        self._stalls_since_us = now_us
        self._stalled_us = 0  # in this period
        self._tick_us = now_us

    # ---- legs come and go -----------------------------------------------------------------------
    def greeting(self, leg: int) -> bytes:
        """What to say first on a new connection."""
        assert len(self._config.checkphrase) == CHECKPHRASE_BYTES
        return Greeting(
            session=self._session,
            leg=leg,
            receiver=self._receiver,
            checkphrase=self._config.checkphrase,
            features=FEATURE_CHECKSUM if self._config.checksum else 0,
            window_bytes=self._config.window_bytes,
            frame_bytes=self.window.frame_bytes,
        ).encode()

    def on_answer(self, leg: int, rank: int, answer: Answer, now_us: int) -> str:
        """rx has answered: "" if the leg is up, else why not; SessionRefused or PeerLost if that is final."""
        anew = answer.verdict is Verdict.ACCEPTED and self.presence.contacted and answer.receiver != self._receiver
        if answer.verdict is Verdict.UNKNOWN or anew:
            if self.presence.legs_up or not self.book.states[rank].worked:
                return self.on_refused_for_good(rank, "another receiver than ours answers")
            raise PeerLost("the receiver was started anew and does not know this stream")
        if answer.verdict in (Verdict.VERSION, Verdict.CHECKPHRASE):
            return self.on_refused_for_good(rank, _REFUSALS[answer.verdict])
        if answer.verdict is not Verdict.ACCEPTED:
            self.book.states[rank].refusal = _REFUSALS[answer.verdict]
            return self.book.states[rank].refusal
        if self._config.checksum and not answer.features & FEATURE_CHECKSUM:
            return self.on_refused_for_good(rank, "the receiver does not verify checksums")
        if not self.presence.contacted:
            assert not self.window.head, "nothing is read before rx has said what its window is"
            self._receiver = answer.receiver
            self.checksum = bool(answer.features & FEATURE_CHECKSUM)
            window_bytes = min(self._config.window_bytes, answer.window_bytes)
            self.window = SendWindow(window_bytes, self.window.frame_bytes, self.checksum)
        assert leg not in self.legs, "the one before must have been given up"
        self.presence.on_leg_up()
        self.book.on_accepted(rank)
        self._refused.pop(rank, None)
        self.legs[leg] = TxLeg(leg, rank, now_us)
        self.restarts += leg in self._known
        self._known.add(leg)
        self.legs_most = max(self.legs_most, len(self.legs))
        return ""

    def on_refused_for_good(self, rank: int, reason: str) -> str:
        """This address leads to a receiver that cannot be ours. SessionRefused if all of them do."""
        self._refused[rank] = reason
        if not self.presence.contacted and len(self._refused) == len(self.book.states):
            raise SessionRefused(f"{self.book.states[rank].address}: {reason}")
        return reason

    def on_attempt_failed(self, rank: int, reason: str, refused: bool, now_us: int, jitter: float) -> None:
        """No leg came of an attempt. `refused`: the host answered that nobody listens there."""
        if refused and self.book.states[rank].worked:
            self.presence.on_refused()
        self.book.on_failed(rank, reason, refused, now_us, jitter)

    def on_leg_lost(self, leg: int, closed_by_peer: bool, now_us: int, jitter: float = 0.5) -> int:
        """An accepted leg is gone; its frames are queued again. Returns how many."""
        state = self.legs.pop(leg)
        self.scheduler.discard(state.rank, leg)
        if not state.useful:
            self.book.on_cut(state.rank, now_us, jitter)
        self.presence.on_leg_lost(closed_by_peer, now_us)
        return self.window.on_leg_lost(leg)

    def next_dial(self, now_us: int) -> tuple[int, int] | None:
        """(leg, rank) of a connection to set up now; `dialling.on_over` says that this has ended. None: not now."""
        return self.dialling.next(self.legs, self.presence.contacted, now_us)

    # ---- frames out -----------------------------------------------------------------------------
    def on_idle(self, leg: int) -> None:
        """The leg's socket has taken all it was given and can take more."""
        state = self.legs[leg]
        state.busy = False
        self._refresh(state)

    def _refresh(self, state: TxLeg) -> None:
        """Whether the leg may get a frame has perhaps changed."""
        if state.busy or state.doubted or state.retiring or state.hoards():
            self.scheduler.discard(state.rank, state.leg)
        else:
            self.scheduler.add(state.rank, state.leg)

    def on_progress(self, leg: int, count: int, now_us: int) -> None:
        """The leg's socket took `count` bytes."""
        state = self.legs[leg]
        state.bytes_sent += count
        state.progress_us = state.said_us = now_us
        self.book.states[state.rank].bytes_sent += count

    def on_rtt(self, leg: int, rtt_us: int, rtt_us_min: int) -> None:
        """The kernel's word on the leg's round trip, now and at its best; 0 where it does not tell."""
        self.legs[leg].rtt_us, self.legs[leg].rtt_us_min = rtt_us, rtt_us_min

    def on_sample(self, leg: int, unacked_bytes: int, now_us: int) -> None:
        """The kernel's word on how much of the leg's bytes the other host has not acknowledged yet.

        Wanted of every leg, also of one that carries nothing: others may have brought what it holds.
        """
        state = self.legs[leg]
        state.on_sample(unacked_bytes, now_us)
        self._refresh(state)

    def next_assignment(self, now_us: int) -> tuple[int, Frame] | None:
        """Which leg sends which frame now: what was lost first, then what is new, then a hedge."""
        leg = self.scheduler.best(now_us)
        if leg is None:
            return None
        frame = self.window.next_lost()
        if frame is None:
            if (late := self._hedge(hedging.pick_very_late, now_us)) is not None:
                return late
            frame = self.window.cut(self.frame_bytes(leg), now_us)
        if frame is not None:
            return self._assign(leg, frame, now_us)
        if not self.window.exhausted():
            return None
        if not self.window.room_bytes() and self._full_since_us is None:
            self._full_since_us = now_us
        return self._hedge(hedging.pick, now_us)

    def deadline_us(self, now_us: int) -> int | None:
        """When `next_assignment` may have something that it has not now; None: only when something happens."""
        if self.scheduler.best(now_us) is None:
            return self.scheduler.deadline_us(now_us)  # a limit holds all up
        return self.window.fill_deadline_us()

    def frame_bytes(self, leg: int) -> int:
        """How long a new frame for this leg should be at most."""
        state = self.legs[leg]
        return min(self.window.frame_bytes, self.scheduler.frame_bytes(state.rank, state.frame_bytes()))

    def _hedge(self, pick: Callable[..., tuple[int, Frame] | None], now_us: int) -> tuple[int, Frame] | None:
        if self.rx_waits_output:
            return None
        picked = pick(self.window, self.legs, self.scheduler.legs(now_us), self._starving_since_us, now_us)
        if picked is None:
            return None
        self.hedges += 1
        return self._assign(*picked, now_us)

    def _assign(self, leg: int, frame: Frame, now_us: int) -> tuple[int, Frame]:
        state = self.legs[leg]
        self.scheduler.discard(state.rank, leg)
        self.scheduler.on_given(state.rank, HEADER_BYTES + frame.length, now_us)
        state.busy = True
        if not self.window.carries(leg) and not state.unacked_bytes:
            state.progress_us = now_us  # nothing could have moved before
        if frame.sends:
            state.retransmitted += 1
        self.window.assign(frame, leg, now_us)
        state.give(frame, now_us)
        return leg, frame

    def heartbeats(self, now_us: int) -> list[int]:
        """The idle legs on which tx has said nothing for HEARTBEAT_US, and says BEAT now."""
        quiet = [s for s in self.legs.values() if not s.busy and now_us - s.said_us >= HEARTBEAT_US]
        for state in quiet:
            state.said_us = now_us
        return [state.leg for state in quiet]

    # ---- what rx says ---------------------------------------------------------------------------
    def on_bytes_untrusted(self, leg: int, data: bytes | memoryview, now_us: int) -> None:
        """Bytes came from rx. FrameError: the leg must die. RemoteFailed: rx gave up."""
        state = self.legs[leg]
        state.heard_us = now_us
        if state.doubted:
            state.doubted = False
            self.window.on_leg_trusted(leg)
            self._refresh(state)
        if now_us - state.since_us >= USEFUL_US:
            self._on_useful(state)
        for header, payload in state.decoder.feed_untrusted(data):
            self._on_message(state, header, payload, now_us)

    def _on_useful(self, state: TxLeg) -> None:
        """The leg has brought a frame over, or has lived for a while: not one that is cut as soon as it is up."""
        if state.useful:
            return
        state.useful = True
        self.book.on_useful(state.rank)
        self.presence.on_useful()

    def _on_message(self, state: TxLeg, header: Header, payload: bytes, now_us: int) -> None:
        if header.kind is Kind.ACK:
            self._on_ack(state, decode_ack_untrusted(header, payload), now_us)
        elif header.kind is Kind.RESEND:
            self.resends += 1
            self.window.on_resend(header.seq, state.leg)
        elif header.kind is Kind.DONE:
            if not self.window.end_cut or header.offset != self.window.cut_end:
                raise FrameError("the receiver calls a stream done that has not ended")
            self.done = True
        else:
            raise RemoteFailed(f"the receiver gave up: {decode_reason(payload)}")

    def _on_ack(self, state: TxLeg, ack: Ack, now_us: int) -> None:
        window = self.window
        was_full = not window.room_bytes()
        overtaken = ack.arrived_next < window.arrived_next or ack.written_bytes < window.written
        arrived = window.on_ack(ack)
        if overtaken:  # a newer one came first, on a faster leg: what rx waited for then does not matter
            return
        waits_output = ack.waiting is Waiting.OUTPUT
        if self.rx_waits_output and not waits_output:
            self._starving_since_us = now_us
        if arrived:
            self._on_useful(state)  # it has brought the news at least, perhaps of what a leg brought that is lost
            self._measure(arrived, waits_output or self.rx_waits_output, now_us)
        self.rx_waits_output = waits_output
        if was_full and self.window.room_bytes():
            self._note_stall(now_us)
            self._full_since_us = None

    def _note_stall(self, now_us: int) -> None:
        """Legs were idle only because the window was full: what is in use of it may be too little."""
        stalled_us = 0 if self._full_since_us is None else now_us - self._full_since_us
        if not stalled_us or self.rx_waits_output:
            return
        self._full_since_us = now_us
        if now_us - self._stalls_since_us > WINDOW_STALL_PERIOD_US:
            self._stalls_since_us, self._stalled_us = now_us, 0
        self._stalled_us += stalled_us
        if self._stalled_us >= WINDOW_STALL_US:
            self._stalled_us = 0
            self.window.grow()

    def _measure(self, arrived: list[Frame], output_blocked: bool, now_us: int) -> None:
        for frame in arrived:
            for leg in frame.legs:
                state = self.legs[leg]
                self._on_useful(state)
                if len(frame.legs) == 1:
                    self._delivered[state.rank] += frame.length
                    if frame.sends == 1:  # else nobody knows which copy it was (Karn)
                        state.progress_us = now_us
                    state.on_arrived(frame.seq, frame.sends == 1 and not output_blocked, now_us)
                self._refresh(state)

    # ---- time -----------------------------------------------------------------------------------
    def on_timer(self, now_us: int) -> list[tuple[int, str]]:
        """The legs to replace and why; PeerLost or NoContact when it makes no sense to go on."""
        if now_us - self._tick_us > S_US:  # it is we who slept (SIGSTOP, a suspended machine): nobody was silent
            for state in self.legs.values():
                state.heard_us = state.progress_us = now_us
        self._tick_us = now_us
        absence = self.presence.absence(now_us)
        if absence is Absence.NO_CONTACT:
            raise NoContact("no contact: " + "; ".join(self.book.failures() or ["no address answered"]))
        if absence is not None:
            raise PeerLost(f"{absence.value}; {self.window.written} bytes were delivered")
        if not self.window.room_bytes():
            self._note_stall(now_us)
        self._tune(now_us)
        self._retire()
        replace = []
        for state in self.legs.values():
            if now_us - state.heard_us >= LEG_DOUBTED_US and not state.doubted:
                state.doubted = True
                self.window.on_leg_doubted(state.leg)
                self._refresh(state)
            if now_us - state.heard_us >= LEG_SILENT_US:
                replace.append((state.leg, "silent"))
            elif state.retiring and not (state.busy or state.unacked_bytes or self.window.carries(state.leg)):
                replace.append((state.leg, RETIRED))
            elif (
                (state.busy or state.unacked_bytes or self.window.carries(state.leg))  # it may hold what others brought
                and not self.rx_waits_output
                and now_us - max(state.progress_us, self._starving_since_us) >= LEG_STUCK_US
            ):
                replace.append((state.leg, "stuck"))
        return replace

    def _tune(self, now_us: int) -> None:
        for rank, tuner in enumerate(self.tuners):
            legs = [leg for leg in self.legs.values() if leg.rank == rank]
            if not legs:
                continue  # nothing can be learnt
            busy = self.scheduler.saturated(rank) and not self.rx_waits_output
            rtts_us = [leg.rtt_us for leg in legs if leg.rtt_us]
            rtt_us = sum(rtts_us) // max(1, len(rtts_us))
            queue_us = rtt_us - min((leg.rtt_us_min for leg in legs if leg.rtt_us), default=0)
            tuner.on_tick(self._delivered[rank], busy, rtt_us, queue_us, now_us)
            self.dialling.targets[rank] = tuner.legs

    def _retire(self) -> None:
        surplus = set(self.dialling.surplus(self.legs))
        for state in self.legs.values():
            if state.retiring != (state.leg in surplus):
                state.retiring = not state.retiring
                self._refresh(state)

    def check(self) -> None:
        """Invariants between the parts."""
        self.window.check()
        assert self.presence.legs_up == len(self.legs)
        assert all(leg in self.legs and not self.legs[leg].busy for leg in self.scheduler.legs(1 << 62))
