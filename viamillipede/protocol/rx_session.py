"""The receiver's session: which legs belong to it, what each does next, what tx is told.

A leg is driven in steps: `step` says what to do with its socket (read into this memory, move so
many bytes to the output, or nothing for now), the shell does it and reports with `advance`. States
of a leg: in a header, in a control payload, in a copy of a frame. A leg that must wait is listed
(waiting_legs.py tells why it must, and when it may not), and handed back by `take_runnable`.
"""

from collections import Counter
from enum import Enum
from fnmatch import fnmatchcase

import xxhash

from viamillipede.config import (
    ACK_RANGES_MAX,
    BLOCKED_US,
    HEARTBEAT_US,
    KIB,
    LEG_DOUBTED_US,
    LEGS_MAX,
    RX_SILENT_US,
    S_US,
    THREADS_MAX,
    USEFUL_US,
    RxConfig,
)
from viamillipede.errors import FrameError, LimitReached, PeerLost, RemoteFailed
from viamillipede.protocol.ack_timer import AckTimer
from viamillipede.protocol.calls import Caller
from viamillipede.protocol.digest import Verification, agree
from viamillipede.protocol.presence import Absence
from viamillipede.protocol.reassembly import Copy, Plan, Reassembly
from viamillipede.protocol.waiting_legs import RxLeg, WaitingLegs
from viamillipede.protocol.wire import (
    FEATURE_CHECKSUM,
    FROM_TX,
    HEADER_BYTES,
    Ack,
    Answer,
    Greeting,
    Header,
    Kind,
    Verdict,
    Waiting,
    decode_header_untrusted,
    decode_reason,
    decode_waits,
    encode_control,
)

SCRATCH_BYTES = 256 * KIB


class Action(Enum):
    """What the shell does next with a leg's socket."""

    READ = "read"  # into the memory given
    DIRECT = "direct"  # move up to so many bytes to the output
    WAIT = "wait"


class RxSession(Caller):
    """One stream, and the legs that bring it. `direct`: the output can take bytes straight from a socket."""

    def __init__(self, config: RxConfig, receiver: bytes, direct: bool, now_us: int) -> None:
        super().__init__(config, receiver, now_us)
        self._config, self._can_direct = config, direct
        self.session: bytes | None = None
        self.name = ""
        self.checksum = config.checksum
        self.reassembly = Reassembly(config.window_bytes, self.checksum, direct)
        self.legs: dict[int, RxLeg] = {}
        self.legs_most = self.restarts = self.resends = 0
        self.output_blocked = False
        self.digest = Verification(0)
        self.tx_waits_us: tuple[int, ...] = ()  # where the time went, as tx says
        self.output_us = self.core_us = 0  # how long the output was waited for, and all of a core was used
        self.done = False  # the output has accepted everything and was closed
        self.bye = False  # tx knows
        self.begun = self.presence.heard = False  # tx takes us for its receiver: it has said something
        self.talkers: list[RxLeg] = []  # legs with something in their outbox; the shell takes them out
        self.times_up: Counter[int] = Counter()  # of each leg number
        self.refusal: bytes | None = None  # why we gave up
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.waiting_legs = WaitingLegs(now_us)
        self._output_since_us = now_us  # since when the output is blocked, or open
        self._ack_timer = AckTimer(config.window_bytes)
        self._ack_leg: RxLeg | None = None  # who brought something last: its way is open
        self._told = Waiting.FRAME
        self._tick_us = now_us

    # ---- legs come and go -----------------------------------------------------------------------
    def on_greeting(self, greeting: Greeting) -> Answer:
        """What to answer. The first session that greets owns the receiver."""
        if greeting.checkphrase != self._config.checkphrase:
            return Answer(Verdict.CHECKPHRASE)
        if any(greeting.receiver) and greeting.receiver != self._receiver:
            return Answer(Verdict.UNKNOWN)
        if greeting.leg >= LEGS_MAX:
            return Answer(Verdict.MALFORMED)
        if self._config.names is not None and not fnmatchcase(greeting.name, self._config.names):
            return Answer(Verdict.NAME)
        if self.session is None:
            self._begin(greeting)
        elif self.session != greeting.session:
            return Answer(Verdict.BUSY)
        return Answer(Verdict.ACCEPTED, self.digest.features, self._receiver, self._config.window_bytes)

    def _begin(self, greeting: Greeting) -> None:
        """The stream is known, and what both sides want to be sure of."""
        config = self._config
        features, direct = agree(config.checksum, config.digest, greeting.features, self._can_direct, self._sealed)
        self.checksum, self.digest = bool(features & FEATURE_CHECKSUM), Verification(features)
        self.session, self.name = greeting.session, greeting.name
        window_bytes = min(config.window_bytes, greeting.window_bytes)
        self.reassembly = Reassembly(window_bytes, self.checksum, direct)
        self._ack_timer = AckTimer(window_bytes)

    def on_answer_lost(self) -> None:
        """An acceptance could not be said: who was to hear it does not own the receiver by that alone."""
        if not self.presence.contacted:
            self.session = None

    def superseded(self, number: int) -> RxLeg | None:
        """The leg that tx has given up, when it greets with the same number again."""
        return self.numbered.get(number)

    def on_leg_up(self, key: int, number: int, now_us: int, rank: int = 0) -> RxLeg:
        """An accepted greeting was answered. The new leg is told at once how things stand."""
        assert number not in self.numbered, "the one before must have been given up"
        leg = self.legs[key] = self.numbered[number] = RxLeg(key, number, now_us, rank)
        self.on_reached(rank)
        self.restarts += number in self.times_up
        self.times_up[number] += 1
        self.legs_most = max(self.legs_most, sum(each.number < THREADS_MAX for each in self.legs.values()))
        self._ack_leg = leg
        self._say(leg, self.refusal or self._standing())
        return leg

    def on_leg_lost(self, leg: RxLeg, closed_by_peer: bool, now_us: int, jitter: float = 0.5) -> None:
        """The leg is gone, and what it had begun to bring with it; what it brought stays."""
        del self.legs[leg.key], self.numbered[leg.number]
        self.waiting_legs.stop(leg)
        if self._ack_leg is leg:
            self._ack_leg = None
        self.on_cut_off(leg.rank, leg.useful, closed_by_peer, now_us, jitter)

    def _on_useful(self, leg: RxLeg) -> None:
        if not leg.useful:
            leg.useful = True
            self.on_of_use(leg.rank)

    # ---- a leg's next step ----------------------------------------------------------------------
    def step(self, leg: RxLeg, now_us: int) -> tuple[Action, memoryview | int]:
        """What to do with the leg's socket now. After READ or DIRECT comes `advance`."""
        copy = leg.copy
        if copy is None:
            if leg.header is None:
                return Action.READ, leg.head[leg.got :]
            return Action.READ, leg.control[leg.got : leg.header.length]
        leg.plan, count = self.reassembly.plan(copy)
        if leg.plan is Plan.WAIT:
            if self.waiting_legs.must_wait(leg, copy, now_us):
                return Action.WAIT, 0
            leg.plan, count = self.reassembly.plan(copy)
        if leg.plan is Plan.DIRECT:
            return Action.DIRECT, count
        if leg.plan is Plan.STORE:
            return Action.READ, self.reassembly.store_view(copy)
        return Action.READ, self._scratch[:count]

    def take_runnable(self) -> RxLeg | None:
        """A leg that need not wait any more; None if there is none."""
        while (leg := self.waiting_legs.take_runnable()) is not None:
            if leg.key in self.legs:
                return leg
        return None

    def advance_untrusted(self, leg: RxLeg, count: int, now_us: int) -> None:
        """`count` bytes went where `step` said.

        FrameError: the leg must die. RemoteFailed: tx gave up. IntegrityError: the stream contradicts itself.
        """
        leg.bytes_received += count
        leg.heard_us = now_us
        copy = leg.copy
        if copy is None:
            leg.got += count
            self._advance_control(leg, now_us)
            return
        reassembly = self.reassembly
        due_before = reassembly.due_seq
        if leg.plan is Plan.DIRECT:
            reassembly.on_direct(copy, count)
        elif leg.plan is Plan.STORE:
            reassembly.on_stored(copy, count)
        else:
            reassembly.on_discarded(copy, count)
            leg.bytes_discarded += count
        if not copy.left():
            self._finish_copy(leg, copy, due_before, now_us)
        self._ack_timer.on_progress(self.reassembly.written, leg.copy is None, now_us)

    def _advance_control(self, leg: RxLeg, now_us: int) -> None:
        header = leg.header
        if header is None:
            if leg.got < HEADER_BYTES:
                return
            header = decode_header_untrusted(leg.head, FROM_TX)
            self.begun = self.presence.heard = True
            leg.got = 0
            if header.kind in (Kind.DATA, Kind.END):
                due_before = self.reassembly.due_seq
                leg.copy = self.reassembly.on_header_untrusted(header)
                if not header.length:
                    self._finish_copy(leg, leg.copy, due_before, now_us)
                    self._ack_timer.on_progress(self.reassembly.written, True, now_us)
                return
            leg.header = header
        if leg.got < header.length:
            return
        self._on_control(leg, header, leg.control[: header.length])
        leg.header, leg.got = None, 0

    def _on_control(self, leg: RxLeg, header: Header, payload: memoryview) -> None:
        if xxhash.xxh3_64_intdigest(payload) != header.payload_hash:
            raise FrameError("damaged payload: its hash is wrong")
        match header.kind:
            case Kind.BEAT:
                if leg.heard_us - leg.since_us >= USEFUL_US:
                    self._on_useful(leg)
            case Kind.LEGS:
                self.on_legs_untrusted(header, payload)
            case Kind.LEAVE:
                del self.times_up[leg.number]  # when it is wanted again, that will be no restart
            case Kind.WAITS:
                self.tx_waits_us = decode_waits(payload)
            case Kind.SUM:
                self.digest.on_sum_untrusted(bytes(payload))
            case Kind.BYE:
                if not self.done:
                    raise FrameError("tx says bye before the stream is done")
                self.bye = True
            case _:
                reason = decode_reason(payload)
                raise RemoteFailed(f"the transmitter gave up at byte {self.reassembly.written}: {reason}")

    def _finish_copy(self, leg: RxLeg, copy: Copy, due_before: int, now_us: int) -> None:
        reassembly, seq = self.reassembly, copy.header.seq
        leg.copy = None
        if reassembly.needs_resend(copy):
            self.resends += 1
            self._say(leg, encode_control(Kind.RESEND, seq))
        else:
            self._ack_timer.arrived_bytes += copy.header.length
            self._ack_leg = leg
            self._on_useful(leg)
            self.waiting_legs.wake(seq)  # copies of it that wait can be thrown away
        if reassembly.due_seq != due_before:
            self.waiting_legs.on_due(due_before, reassembly.due_seq, now_us)
            self.waiting_legs.wake(reassembly.due_seq)

    # ---- output ---------------------------------------------------------------------------------
    def on_output_blocked(self, now_us: int) -> None:
        """The output takes nothing at the moment."""
        if not self.output_blocked:
            self.output_blocked = True
            self._output_since_us = now_us
            self.waiting_legs.on_output(None)

    def on_output_open(self, now_us: int) -> None:
        """The output takes bytes again; who waits for the due frame's turn may go on."""
        if self.output_blocked:
            self.output_blocked = False
            self._output_since_us = now_us
            self.waiting_legs.on_output(now_us)
        self.waiting_legs.wake(self.reassembly.due_seq)

    def on_written(self, count: int, now_us: int) -> None:
        """The output accepted `count` bytes of `reassembly.output_view()`."""
        self.reassembly.on_written(count)
        if self.reassembly.output_view() is None:
            self.waiting_legs.wake(self.reassembly.due_seq)
        self._ack_timer.on_progress(self.reassembly.written, True, now_us)

    def on_done(self) -> None:
        """The output accepted everything and was closed: every leg says so."""
        assert self.reassembly.complete()
        self.done = True
        for leg in self.legs.values():
            self._say(leg, self._standing())

    def refuse(self, message: bytes) -> None:
        """We give up: every leg says why, also those that are still to come, and nothing else any more."""
        self.refusal = message
        for leg in self.legs.values():
            self._say(leg, message)

    def _say(self, leg: RxLeg, message: bytes) -> None:
        leg.outbox.append(message)
        self.talkers.append(leg)

    def ask_digest(self) -> None:
        """All was written: every leg asks for tx's digest."""
        self.digest.asking = True
        for leg in self.legs.values():
            self._say(leg, self._standing())

    def _standing(self) -> bytes:
        """What a leg is told when it is new, or quiet."""
        if self.done:
            return encode_control(Kind.DONE, offset=self.reassembly.written)
        return self.digest.question(self.reassembly.written) or self._ack_message()

    # ---- acknowledgements -----------------------------------------------------------------------
    def waiting(self) -> Waiting:
        """What the stream waits for."""
        reassembly = self.reassembly
        if self.output_blocked or reassembly.written < reassembly.ready_end() or reassembly.total is not None:
            return Waiting.OUTPUT
        return Waiting.FRAME

    def ack(self) -> Ack:
        """How things stand."""
        due, ranges = self.reassembly.due_seq, self.reassembly.arrived.first(ACK_RANGES_MAX)
        return Ack(due, self.reassembly.written, self.waiting(), due, ranges, self.output_us, self.core_us)

    def next_ack(self, now_us: int) -> tuple[RxLeg, bytes] | None:
        """The acknowledgement to send now and the leg to send it on; None if none is due."""
        blocked_untold = (
            self.output_blocked and self._told is Waiting.FRAME and now_us >= self._output_since_us + BLOCKED_US
        )
        if self.done or self.refusal or not self.legs or not (self._ack_timer.due(now_us) or blocked_untold):
            return None
        leg = self._ack_leg or max(self.legs.values(), key=lambda each: each.heard_us)
        self._ack_timer.on_acked(self.reassembly.written)
        leg.sent_us = now_us
        return leg, self._ack_message()

    def _ack_message(self) -> bytes:
        ack = self.ack()
        self._told = ack.waiting
        return ack.encode()

    def heartbeats(self, now_us: int) -> tuple[list[RxLeg], bytes]:
        """The legs on which rx has said nothing for HEARTBEAT_US, and what to say."""
        quiet = [leg for leg in self.legs.values() if now_us - leg.sent_us >= HEARTBEAT_US and not leg.outbox]
        for leg in quiet:
            leg.sent_us = now_us
        if not quiet or self.refusal:
            return [], b""
        return quiet, self._standing()

    # ---- time -----------------------------------------------------------------------------------
    def deadline_us(self) -> int | None:
        """When `on_timer` or `next_ack` has something to do; None: only when something happens."""
        if self.done or self.refusal:
            return None  # that says it all: next_ack has nothing to add
        deadlines = []
        if self._ack_timer.deadline_us is not None and self.legs:
            deadlines.append(self._ack_timer.deadline_us)
        if self.output_blocked and self._told is Waiting.FRAME and self.legs:
            deadlines.append(self._output_since_us + BLOCKED_US)
        if not self.output_blocked and (aside_us := self.waiting_legs.deadline_us()) is not None:
            deadlines.append(aside_us)
        return min(deadlines, default=None)

    def listens_to(self, leg: RxLeg, now_us: int) -> bool:
        """Whether rx has been reading the leg for so long that tx must have said something."""
        blocked = self.output_blocked or now_us - self._output_since_us < LEG_DOUBTED_US
        return not blocked and leg not in self.waiting_legs

    def silent(self, now_us: int) -> list[RxLeg]:
        """The legs that rx listens to and that have said nothing for too long. To be asked every tick."""
        if now_us - self._tick_us > S_US:  # it is we who slept
            for leg in self.legs.values():
                leg.heard_us = now_us
        self._tick_us = now_us
        if self.output_blocked or now_us - self._output_since_us < RX_SILENT_US:
            return []
        return [
            leg for leg in self.legs.values() if now_us - leg.heard_us >= RX_SILENT_US and leg not in self.waiting_legs
        ]

    def on_timer(self, now_us: int) -> None:
        """Frames that have waited too long for a starving output are read aside. PeerLost, LimitReached."""
        self.waiting_legs.expire(now_us)
        absence = None if self.reassembly.complete() and self.digest.verified else self.presence.absence(now_us)
        if absence is Absence.NO_CONTACT:
            why = "; ".join(["", *self.book.failures()])
            raise LimitReached(f"no transmitter came within {(self._config.wait_us or 0) / S_US:.10g} s{why}")
        if absence is not None:
            raise PeerLost(f"{absence.value}; the stream ends incomplete at byte {self.reassembly.written}")

    def check(self) -> None:
        """Invariants between the parts."""
        self.reassembly.check()
        assert self.presence.legs_up == len(self.legs) == len(self.numbered)
        self.waiting_legs.check(self.legs)
