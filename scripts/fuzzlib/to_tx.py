"""What tx hears on the legs of a stream: TxSession with its window, in clear or sealed; and calls, when it listens."""

import contextlib
from unittest.mock import patch

from tests.protocol.drive import HOSTS, RECEIVER, Sender
from viamillipede.config import FRAMES_MAX, KIB, LEG_SILENT_US, LEG_STUCK_US, MS_US, S_US, TICK_US, Address, TxConfig
from viamillipede.errors import FrameError, IntegrityError, NoContact, PeerLost, RemoteFailed, SessionRefused
from viamillipede.protocol import send_window
from viamillipede.protocol.noise import CipherState
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.wire import (
    CONTROL_BYTES_MAX,
    FEATURE_CHECKSUM,
    FEATURE_SHA256,
    FEATURE_XXH3,
    HEADER_BYTES,
    Ack,
    Answer,
    Call,
    Kind,
    Verdict,
    Waiting,
    encode_control,
)

from .messages import any_message, mended
from .script import Script
from .to_rx import KEY, TRUE, in_records

LEGS = 4
WINDOW_BYTES = 64 * KIB
START_BYTES = 4 * KIB
OPS_MAX = 400
RECEIVE_BYTES = 64 * KIB
ENDS = (RemoteFailed, IntegrityError, PeerLost, NoContact, SessionRefused)  # how a stream may end by what a peer does
VERDICTS = tuple(Verdict)
PEER = Address("c", 3)


class Stream:
    """One run of a script."""

    def __init__(self, script: Script, sealed: bool) -> None:
        self.script, flags = script, script.byte()
        self.sealed, self.listens = sealed, bool(flags & 1)
        config = TxConfig(
            addresses=() if self.listens else HOSTS,
            threads=0 if flags & 2 else LEGS,
            window_bytes=WINDOW_BYTES,
            frame_bytes=script.choose((KIB, 4 * KIB, 16 * KIB)),
            checksum=bool(flags & 4),
            digest="xxh3" if flags & 8 else "auto",
        )
        self.sender = Sender(config)
        self.tx = self.sender.tx
        self.features = (FEATURE_XXH3 if flags & 24 else 0) | (FEATURE_SHA256 if flags & 32 else 0)
        self.now_us = self.steps = self.taken = 0
        self.given: dict[int, Frame] = {}  # every frame that was ever sent
        self.told_digest = False  # the right one
        self.sealers: dict[int, tuple[Sealer, Opener]] = {}
        self.opening = 0  # calls that are being answered

    # ---- what rx says ---------------------------------------------------------------------------
    def hear(self, leg: int, data: bytes) -> None:
        """Bytes come on a leg, as the shell takes them; a leg that lies is lost."""
        if leg not in self.tx.legs and (self.listens or not self.up(leg)):
            return
        try:
            if self.sealed:
                self._hear_sealed(leg, data)
            else:
                for at in range(0, len(data), piece := self.script.choose((RECEIVE_BYTES, 1, 7, 39, 41, KIB))):
                    self._take(leg, data[at : at + piece])
        except FrameError:
            self.lose(leg)

    def _take(self, leg: int, data: bytes | memoryview) -> None:
        self.tx.on_bytes_untrusted(leg, data, self.now_us)
        decoder = self.tx.legs[leg].decoder
        assert len(decoder._buffer) <= HEADER_BYTES + CONTROL_BYTES_MAX
        self.sender.tx.on_idle(leg)
        if self.tx.digest.answer() is not None:
            self.tx.digest.check()

    def _hear_sealed(self, leg: int, data: bytes) -> None:
        sealer, opener = self.sealers[leg]
        rest = bytearray(in_records(sealer, data))

        def receive(view: memoryview) -> int:
            if not rest:
                raise BlockingIOError
            count = min(len(view), len(rest))
            view[:count] = rest[:count]
            del rest[:count]
            return count

        buffer = memoryview(bytearray(self.script.choose((RECEIVE_BYTES, 1, 39, 41, KIB))))
        with contextlib.suppress(BlockingIOError):
            while count := opener.read_all(receive, buffer):
                self._take(leg, buffer[:count])

    def up(self, leg: int) -> bool:
        """An answer to the greeting on a leg; whether it is up."""
        shape = self.script.byte()
        verdict = VERDICTS[self.script.byte() % len(VERDICTS)] if shape % 16 == 15 else Verdict.ACCEPTED
        receiver = RECEIVER if shape % 16 < 14 else b"somebody"
        features = self.features | (FEATURE_CHECKSUM if shape & 16 or self.tx.checksum else 0)
        window_bytes = self.script.number(WINDOW_BYTES) if shape & 32 else WINDOW_BYTES
        answer = Answer(verdict, features, receiver, max(WINDOW_BYTES, window_bytes))
        reason = self.tx.on_answer(leg, leg % len(self.tx.book.states), answer, self.now_us)
        if not reason:
            self.tx.on_idle(leg)
            state = Sealer(CipherState("ChaChaPoly", KEY)), Opener(CipherState("ChaChaPoly", KEY))
            self.sealers[leg] = state
        return not reason

    def lose(self, leg: int) -> None:
        """The leg is gone."""
        self.tx.on_leg_lost(leg, bool(self.script.byte() % 2), self.now_us)

    def acknowledge(self) -> bytes:
        """ACK: what an honest rx could say, or something near it."""
        script, window = self.script, self.tx.window
        shape = script.byte()
        arrived = min(window.next_seq, window.arrived_next + shape % 8)
        written = max((f.offset + f.length for f in self.given.values() if f.seq < arrived), default=0)
        ranges: tuple[tuple[int, int], ...] = ()
        if shape & 8 and arrived + 2 < window.next_seq:
            ranges = ((arrived + 1, arrived + 2),)
        if shape & 16:
            arrived = script.number(window.next_seq)
        if shape & 32:
            written = script.number(window.cut_end)
        if shape & 64:
            ends = sorted({script.number(window.next_seq) for _ in range(2 * (script.byte() % 5))})
            ranges = tuple(zip(ends[::2], ends[1::2], strict=False))
        numbers = (script.number(), script.number()) if shape & 128 else (0, 0)
        waiting = Waiting.OUTPUT if script.byte() % 4 == 3 else Waiting.FRAME
        return Ack(arrived, written, waiting, arrived, ranges, *numbers).encode()

    def digest(self) -> bytes:
        """DIGEST: the right one, of the right length, or not."""
        shape, own = self.script.byte(), self.tx.digest.own
        right = own is not None and not shape & 1
        payload = own.value() if own is not None and right else self.script.take(16) or b"x"
        whole = self.tx.window.end_cut and not shape & 2
        offset = self.tx.window.cut_end if whole else self.script.number(self.tx.window.cut_end)
        self.told_digest |= own is not None and payload == own.value() and self.tx.window.end_cut
        return encode_control(Kind.DIGEST, offset=offset, payload=payload)

    # ---- what tx does ---------------------------------------------------------------------------
    def pump(self) -> None:
        """Frames to idle legs; what is sent is what was read."""
        while (assignment := self.tx.next_assignment(self.now_us)) is not None:
            leg, frame = assignment
            payload = bytes(self.tx.window.payload(frame))
            assert len(payload) == frame.length
            first = max(0, self.tx.window.written - frame.offset)  # what is written may be gone, and is of no use
            start, end = frame.offset + first, frame.offset + frame.length
            assert payload[first:] == TRUE[start:end] and first <= frame.length, f"{frame!r} is not what was read"
            self.given[frame.seq] = frame
            self.tx.on_progress(leg, HEADER_BYTES + frame.length, self.now_us)
            if self.script.byte() % 8:
                self.tx.on_idle(leg)
            if self.tx.legs[leg].hoards():
                self.tx.on_sample(leg, self.script.number(0, 16), self.now_us)

    def read(self) -> None:
        """Some of the input, or its end."""
        count = self.script.number(0, 14)
        piece = TRUE[self.taken : self.taken + count]
        if self.tx.presence.contacted and not self.tx.window.ended:
            self.taken += self.sender.input(piece, self.now_us)
            if not piece:
                self.tx.window.on_input_end()

    def time(self) -> None:
        """It passes."""
        self.now_us += self.script.choose((1, MS_US, TICK_US, S_US, LEG_SILENT_US, LEG_STUCK_US))
        for leg, _ in self.tx.on_timer(self.now_us):
            self.lose(leg)
        self.tx.heartbeats(self.now_us)
        if self.listens:
            self.tx.wishes.due(self.tx.dialling, self.now_us)
        while (wanted := self.tx.next_dial(self.now_us)) is not None:
            self.tx.dialling.on_over(wanted[0])
            if wanted[0] in self.tx.legs or not self.up(wanted[0]):
                break

    def call(self) -> None:
        """rx calls, and answers later, or never."""
        script = self.script
        receiver = script.choose((RECEIVER, RECEIVER, RECEIVER, b"somebody"))
        ranks = 1 + script.byte() % 3
        call = Call(receiver, script.number(2, 11) % 2048, script.byte() % ranks, ranks, bytes(4))
        if self.tx.on_call(call, PEER, self.now_us) is not Verdict.ACCEPTED:
            return
        self.opening += 1
        if script.byte() % 4:
            if call.leg in self.tx.legs:
                self.lose(call.leg)
            answer = Answer(Verdict.ACCEPTED, self.features | int(self.tx.checksum), receiver, WINDOW_BYTES)
            if not self.tx.on_answer(call.leg, call.rank, answer, self.now_us):
                self.tx.on_idle(call.leg)
                self.sealers[call.leg] = Sealer(CipherState("ChaChaPoly", KEY)), Opener(CipherState("ChaChaPoly", KEY))
        if script.byte() % 4:
            self.opening -= 1
            self.tx.on_call_over()

    def step(self) -> None:
        """One decision of the script."""
        script, self.steps = self.script, self.steps + 1
        window, op = self.tx.window, script.byte() % 16
        leg = self.leg()
        if op <= 2:
            self.read()
        elif op <= 5:
            self.hear(leg, self.acknowledge())
        elif op == 6:
            seq = script.number(window.arrived_next)
            self.hear(leg, encode_control(Kind.RESEND, seq))
        elif op == 7:
            self.hear(leg, self.digest())
        elif op == 8:
            offset = window.cut_end if script.byte() % 2 else script.number(window.cut_end)
            self.hear(leg, encode_control(Kind.DONE, offset=offset))
        elif op == 9:
            self.hear(leg, any_message(script, window.next_seq, window.cut_end))
        elif op == 10:
            self.hear(leg, mended(script.take(script.byte())))
        elif op == 11:
            self.hear(leg, script.take(script.byte()))
        elif op == 12 and leg in self.tx.legs:
            self.lose(leg)
        elif op == 13:
            self.time()
        elif op == 14 and self.listens:
            self.call()
        elif leg in self.tx.legs:
            self.tx.on_idle(leg)
        self.pump()

    def leg(self) -> int:
        """One of those that are up, or a small number."""
        said, legs = self.script.byte(), sorted(self.tx.legs)
        return legs[said % len(legs)] if legs and said >= 128 else said % LEGS

    def check(self) -> None:
        """What must hold after each step."""
        window = self.tx.window
        self.tx.check()
        assert window.head - window.written <= WINDOW_BYTES and window._ring.size_bytes <= WINDOW_BYTES
        assert window.frames_in_flight() <= FRAMES_MAX
        if self.tx.done:
            assert window.end_cut, "done before the end"
            assert self.tx.digest.own is None or self.told_digest, "done, and the digest was never told"


def run(data: bytes, sealed: bool = False) -> None:
    """Play a script."""
    stream = Stream(Script(data), sealed)
    small = patch.object(send_window, "WINDOW_BYTES_START", START_BYTES)  # a window that has to grow
    with small if data[:1] >= b"\x80" else contextlib.nullcontext(), contextlib.suppress(*ENDS):
        while stream.script and stream.steps < OPS_MAX and not stream.tx.done:
            stream.step()
            stream.check()
    if stream.tx.done:
        stream.check()


def run_sealed(data: bytes) -> None:
    """The same on sealed legs."""
    run(data, sealed=True)
