"""The transmitter's session: joins window, scheduler, presence and addresses; decides, does nothing.

The shell reports what happened (an answer, bytes from rx, bytes taken by a socket, input, time) and
asks what to do (`next_assignment`, `input_view`, `on_timer`). No call blocks, waits or looks at a
clock. Sequence of a leg, as the core sees it:

    on_answer -> ( on_idle -> next_assignment -> on_progress* )* -> on_leg_lost

How the session ends: `done` after rx said that its output accepted everything; otherwise an
`errors.Failure` is raised by the call that noticed.
"""

from collections.abc import Callable, Sequence

from viamillipede.config import (
    CHECKPHRASE_BYTES,
    HEARTBEAT_US,
    LEG_DOUBTED_US,
    LEG_SILENT_US,
    LEG_STUCK_US,
    S_US,
    THREADS_AUTO,
    TICK_US,
    USEFUL_US,
    Address,
    TxConfig,
)
from viamillipede.errors import FrameError, NoContact, PeerLost, RemoteFailed
from viamillipede.protocol import hedging
from viamillipede.protocol.calls import Callers, Wishes
from viamillipede.protocol.contact import UNKNOWN, Contact
from viamillipede.protocol.digest import FEATURE_OF, Comparison
from viamillipede.protocol.presence import Absence
from viamillipede.protocol.scheduler import Scheduler
from viamillipede.protocol.send_window import Frame, SendWindow
from viamillipede.protocol.stalls import Stalls
from viamillipede.protocol.tuner import Tuner
from viamillipede.protocol.tx_leg import TxLeg
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    HEADER_BYTES,
    Ack,
    Answer,
    Call,
    Greeting,
    Header,
    Kind,
    Verdict,
    Waiting,
    decode_ack_untrusted,
    decode_reason,
)

OUTPUT_SHARE = 4  # rx waited for its output for more than this part of a tick: not the network is slow
RETIRED = "not needed any more"


class TxSession(Contact):
    """One stream and the legs that carry it."""

    role, other, opening = "transmitter", "receiver", "greeting"

    def __init__(self, config: TxConfig, session: bytes, now_us: int) -> None:
        self._config, self.session = config, session
        self.name = config.name
        self.legs: dict[int, TxLeg] = {}
        super().__init__(config, config.wait_us, self.legs, now_us)
        self.callers, self.wishes = Callers(config.checkphrase), Wishes()
        self._set_out(config.addresses or (UNKNOWN,), now_us)
        self.window = SendWindow(config.window_bytes, config.frame_bytes, config.checksum)
        self.legs_most = self.restarts = self.hedges = self.resends = 0
        self.done = False
        self.checksum = config.checksum
        self.digest = Comparison(0)
        self.rx_output_us = self.rx_core_us = 0  # how long rx has waited for its output, and used all of a core
        self.rx_waits_output = False
        self._receiver = bytes(8)
        self._known: set[int] = set()  # legs that were up once
        self._starving_since_us = self._ack_us = self._tick_us = now_us
        self._output_waits_us = 0  # of this tick, rx waited for its output for so long
        self._stalls = Stalls(now_us)

    def _set_out(self, addresses: Sequence[Address], now_us: int) -> None:
        """The paths are known: from the start, or, listening, from the first call."""
        count, config = len(addresses), self._config
        threads = max(config.threads, count)
        legs_of = [threads // count + (rank < threads % count) for rank in range(count)]
        self.tuners: list[Tuner] = []
        if config.threads == THREADS_AUTO:
            self.tuners = [Tuner(count, now_us) for _ in range(count)]
            legs_of = [tuner.legs for tuner in self.tuners]
        self.set_out(addresses, legs_of, moving=not self.tuners)
        self.scheduler = Scheduler(addresses, config.limit_bytes)
        self._delivered = [0] * count  # bytes that the next hosts have acknowledged, by rank: finer than frames

    # ---- legs come and go -----------------------------------------------------------------------
    def on_call(self, call: Call, address: Address, now_us: int) -> Verdict:
        """rx has called. ACCEPTED: greet it, and tell `on_call_over` when it has answered, or has not."""
        verdict, first = self.callers.on_call(call)
        if first:
            self._receiver = call.receiver
            self._set_out([UNKNOWN] * call.ranks, now_us)
        if verdict is Verdict.ACCEPTED:
            self.book.states[call.rank].address = address
        return verdict

    def on_call_over(self) -> None:
        """The call has led to a leg, or to none."""
        self.callers.on_over(self.presence.contacted)

    def greeting(self, leg: int) -> bytes:
        """What to say first on a new connection."""
        assert len(self._config.checkphrase) == CHECKPHRASE_BYTES
        return Greeting(
            session=self.session,
            leg=leg,
            receiver=self._receiver,
            checkphrase=self._config.checkphrase,
            features=(FEATURE_CHECKSUM if self._config.checksum else 0) | FEATURE_OF[self._config.digest],
            window_bytes=self._config.window_bytes,
            frame_bytes=self.window.frame_bytes,
            name=self._config.name,
        ).encode()

    def on_answer(self, leg: int, rank: int, answer: Answer, now_us: int) -> str:
        """rx has answered: "" if the leg is up, else why not; SessionRefused or PeerLost if that is final."""
        if reason := self._refusal(rank, answer):
            return reason
        if not self.presence.contacted:
            assert not self.window.head, "nothing is read before rx has said what its window is"
            self._receiver = answer.receiver
            self.checksum = bool(answer.features & FEATURE_CHECKSUM)
            self.digest = Comparison(answer.features)
            window_bytes = min(self._config.window_bytes, answer.window_bytes)
            self.window = SendWindow(window_bytes, self.window.frame_bytes, self.checksum)
        assert leg not in self.legs, "the one before must have been given up"
        self.on_reached(rank)
        self.legs[leg] = TxLeg(leg, rank, now_us)
        self.restarts += leg in self._known
        self._known.add(leg)
        self.legs_most = max(self.legs_most, len(self.legs))
        return ""

    def _refusal(self, rank: int, answer: Answer) -> str:
        ours = self._receiver in (answer.receiver, bytes(8))
        if answer.verdict is Verdict.UNKNOWN or (answer.verdict is Verdict.ACCEPTED and not ours):
            final = "the receiver was started anew and does not know this stream"
            return self.on_another_process(rank, "another receiver than ours answers", final)
        if answer.verdict is not Verdict.ACCEPTED:
            return self.on_verdict(rank, answer.verdict)
        if self._config.checksum and not answer.features & FEATURE_CHECKSUM:
            return self.on_refused_for_good(rank, "the receiver does not verify checksums")
        if FEATURE_OF[self._config.digest] & ~answer.features:
            return self.on_refused_for_good(rank, f"the receiver does not take the digest {self._config.digest}")
        return ""

    def on_leg_lost(self, leg: int, closed_by_peer: bool, now_us: int, jitter: float = 0.5) -> int:
        """An accepted leg is gone; its frames are queued again. Returns how many."""
        state = self.legs.pop(leg)
        self.scheduler.discard(state.rank, leg)
        if state.retiring:
            self._known.discard(leg)  # when it is wanted again, that will be no restart
        self.on_cut_off(state.rank, state.useful or state.retiring, closed_by_peer, now_us, jitter)
        return self.window.on_leg_lost(leg)

    # ---- frames out -----------------------------------------------------------------------------
    def on_idle(self, leg: int) -> None:
        """The leg's socket has taken all it was given and can take more."""
        state = self.legs[leg]
        state.busy = False
        if state.latest is not None:
            state.latest.whole = True
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
        self._delivered[state.rank] += state.on_sample(unacked_bytes, now_us)
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
        if not self.window.room_bytes():
            self._stalls.on_full(now_us)
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
        self.on_of_use(state.rank)

    def _on_message(self, state: TxLeg, header: Header, payload: bytes, now_us: int) -> None:
        if header.kind is Kind.ACK:
            self._on_ack(state, decode_ack_untrusted(header, payload), now_us)
        elif header.kind is Kind.RESEND:
            self.resends += 1
            self.window.on_resend(header.seq, state.leg)
        elif header.kind is Kind.DONE:
            if not self.window.all_sent() or header.offset != self.window.cut_end:
                raise FrameError("the receiver calls a stream done that has not ended")
            if not self.digest.compared:
                raise FrameError("the receiver calls a stream done whose digest it has not told")
            self.done = True
        elif header.kind is Kind.DIGEST:
            self.digest.on_theirs_untrusted(payload, self.window.end_cut and header.offset == self.window.cut_end)
        else:
            raise RemoteFailed(f"the receiver gave up: {decode_reason(payload)}")

    def _on_ack(self, state: TxLeg, ack: Ack, now_us: int) -> None:
        window = self.window
        was_full = not window.room_bytes()
        overtaken = ack.arrived_next < window.arrived_next or ack.written_bytes < window.written
        arrived = window.on_ack(ack)
        self.rx_output_us = max(self.rx_output_us, ack.output_us)
        self.rx_core_us = max(self.rx_core_us, ack.core_us)
        if overtaken:  # a newer one came first, on a faster leg: what rx waited for then does not matter
            return
        waits_output = ack.waiting is Waiting.OUTPUT
        if self.rx_waits_output:
            self._output_waits_us += now_us - self._ack_us
        self._ack_us = now_us
        if self.rx_waits_output and not waits_output:
            self._starving_since_us = now_us
        if arrived:
            self._on_useful(state)  # it has brought the news at least, perhaps of what a leg brought that is lost
            self._measure(arrived, waits_output or self.rx_waits_output, now_us)
        self.rx_waits_output = waits_output
        if was_full:
            self._enlarge(now_us)

    def _enlarge(self, now_us: int) -> None:
        """The window is, or was, full: use more of it if what is in use is too little."""
        if self._stalls.too_small(self.rx_waits_output, now_us):
            self.window.grow()
        if self.window.room_bytes():
            self._stalls.on_room()

    def _measure(self, arrived: list[Frame], output_blocked: bool, now_us: int) -> None:
        for frame in arrived:
            for leg in frame.legs:
                state = self.legs[leg]
                self._on_useful(state)
                if frame.sends == 1:  # else nobody knows which copy it was (Karn)
                    state.progress_us = now_us
                    state.on_arrived(frame.seq, not output_blocked, now_us)
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
            asked = ", ".join(str(state.address) for state in self.book.states)
            nobody = f"no address answered: {asked}" if self.dials else "no receiver called"
            raise NoContact("no contact: " + "; ".join(self.book.failures() or [nobody]))
        if absence is not None:
            raise PeerLost(f"{absence.value}; {self.window.written} bytes were delivered")
        if not self.window.room_bytes():
            self._enlarge(now_us)
        self._tune(now_us)
        self._retire()
        replace = []
        for state in self.legs.values():
            silent_us = now_us - state.heard_us
            if silent_us >= LEG_DOUBTED_US + 2 * state.rtt_us and not state.doubted:
                state.doubted = True
                self.window.on_leg_doubted(state.leg)
                self._refresh(state)
            if silent_us >= LEG_SILENT_US + 4 * state.rtt_us:
                replace.append((state.leg, "silent"))
            elif state.retiring and not (state.busy or state.unacked_bytes or self.window.carries(state.leg)):
                replace.append((state.leg, RETIRED))
            elif (
                (state.busy or state.unacked_bytes or self.window.carries(state.leg))  # it may hold what others brought
                and not self.rx_waits_output
                and now_us - max(state.progress_us, self._starving_since_us) >= LEG_STUCK_US + 8 * state.rtt_us
            ):
                replace.append((state.leg, "stuck"))
        return replace

    def _tune(self, now_us: int) -> None:
        output_slow = self.rx_waits_output or OUTPUT_SHARE * self._output_waits_us > TICK_US
        self._output_waits_us = 0
        for rank, tuner in enumerate(self.tuners):
            legs = [leg for leg in self.legs.values() if leg.rank == rank and not leg.doubted]
            if not legs:
                continue  # nothing can be learnt
            busy = self.scheduler.saturated(rank) and not output_slow
            rtts_us = [leg.rtt_us for leg in legs if leg.rtt_us]
            rtt_us = sum(rtts_us) // max(1, len(rtts_us))
            queue_us = rtt_us - min((leg.rtt_us_min for leg in legs if leg.rtt_us), default=0)
            tuner.on_tick(self._delivered[rank], len(legs), busy, rtt_us, queue_us, now_us)
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
