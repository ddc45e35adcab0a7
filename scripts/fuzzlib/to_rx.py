"""What rx hears on the legs of a stream: RxSession with its memory and its output, in clear or sealed.

Of each byte that comes out a second reading of the legs (said.py) tells whether it was sent for this place.
"""

import contextlib
from unittest.mock import patch

import xxhash

from tests.protocol.drive import HOSTS, Receiver, greeting
from viamillipede.config import (
    FRAMES_MAX,
    KIB,
    LEGS_MAX,
    REASON_BYTES_MAX,
    RX_SILENT_US,
    S_US,
    TICK_US,
    WINDOW_BYTES_MIN,
    RxConfig,
)
from viamillipede.errors import FrameError, IntegrityError, LimitReached, PeerLost, RemoteFailed
from viamillipede.protocol import reassembly
from viamillipede.protocol.noise import CipherState
from viamillipede.protocol.rx_session import Action
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.waiting_legs import RxLeg
from viamillipede.protocol.wire import FEATURE_CHECKSUM, HEADER_BYTES, Kind, Verdict, encode_control, encode_header

from .messages import any_message, mended
from .said import LegSaid, Said
from .script import Script

LEGS = 4
FRAME_BYTES = 4 * KIB
START_BYTES = 5 * KIB
STREAM_BYTES = 256 * KIB
OPS_MAX = 400
KEY = bytes(range(32))
ENDS = (FrameError, RemoteFailed, IntegrityError, PeerLost, LimitReached)  # how a stream may end by what a peer does
TRUE = bytes((p * 167 + (p >> 8) * 31) & 0xFF for p in range(STREAM_BYTES))
FALSE = bytes(b ^ 0xFF for b in TRUE)


class Shell(Receiver):
    """Does what rx's shell does: whoever lies loses its leg, and nobody else. Sealed legs hand out records."""

    def __init__(self, config: RxConfig, direct: bool, sealed: bool) -> None:
        super().__init__(config, direct and not sealed)
        self._openers: dict[int, Opener] = {}
        self.sealers: dict[int, Sealer] = {}
        self._is_sealed = sealed

    def up(self, number: int, window_bytes: int, features: int, now_us: int) -> RxLeg | None:
        """A leg that greets; None: it was refused."""
        greets = greeting(number, window_bytes=window_bytes, features=features)
        if self.rx.on_greeting(greets).verdict is not Verdict.ACCEPTED:
            return None
        if (old := self.rx.superseded(number)) is not None:
            self.lose(old, now_us, closed_by_peer=False)
        leg = self.rx.on_leg_up(len(self.sockets), number, now_us)
        self.sockets[leg.key] = bytearray()
        self._openers[leg.key] = Opener(CipherState("ChaChaPoly", KEY))
        self.sealers[leg.key] = Sealer(CipherState("ChaChaPoly", KEY))
        return leg

    def run(self, leg: RxLeg, now_us: int) -> None:
        """As the shell drives a leg."""
        if leg.key not in self.rx.legs:
            return
        try:
            if self._is_sealed:
                self._run_sealed(leg, now_us)
            else:
                super().run(leg, now_us)
        except FrameError:
            self.lose(leg, now_us, closed_by_peer=False)
        assert len(leg.control) <= REASON_BYTES_MAX

    def _run_sealed(self, leg: RxLeg, now_us: int) -> None:
        socket = self.sockets[leg.key]

        def receive(view: memoryview) -> int:
            count = min(len(view), len(socket), self.piece_bytes)
            if not count:
                raise BlockingIOError
            view[:count] = socket[:count]
            del socket[:count]
            return count

        while True:
            action, what = self.rx.step(leg, now_us)
            if action is Action.WAIT:
                return
            assert isinstance(what, memoryview) and what, "a sealed leg reads into memory"
            try:
                count = self._openers[leg.key].read_into(receive, what)
            except BlockingIOError:
                return
            self.rx.advance_untrusted(leg, count, now_us)
            self.rx.check()


class Stream:
    """One run of a script. `seal`: what is said goes through the fuzzer's own key."""

    def __init__(self, script: Script, sealed: bool) -> None:
        self.script, flags = script, script.byte()
        self.sealed = sealed
        self.checksum = bool(flags & 1)
        digest = "sha256" if flags & 2 else "auto"
        addresses = HOSTS if flags & 32 else ()
        config = RxConfig(window_bytes=WINDOW_BYTES_MIN, checksum=self.checksum, digest=digest, addresses=addresses)
        self.shell = Shell(config, direct=bool(flags & 4), sealed=sealed)
        self.features = FEATURE_CHECKSUM if flags & 8 else 0
        self.greeted_bytes = max(1, script.number(WINDOW_BYTES_MIN)) if flags & 16 else WINDOW_BYTES_MIN
        self.legs: list[RxLeg | None] = [None] * LEGS
        self.later = [bytearray() for _ in range(LEGS)]  # what each leg has yet to bring
        self.now_us = 0
        self.cut: list[tuple[int, int, int]] = []  # seq, offset and length of the right frames so far
        self.next_offset = 0
        self.said = Said()
        self.heard = [LegSaid(self.said) for _ in range(LEGS)]
        self.checked = self.steps = 0

    # ---- what is said ---------------------------------------------------------------------------
    def say(self, index: int, data: bytes, cut: bool = True) -> None:
        """A leg brings whole messages, or a beginning of them and the rest later."""
        leg = self.leg(index)
        if leg is None:
            return
        self.heard[index].feed(data)
        if self.sealed:
            data = in_records(self.shell.sealers[leg.key], data)
        self.later[index] += data
        part = self.script.byte() if cut else 0
        count = len(self.later[index]) if part < 128 else len(self.later[index]) * (part - 128) // 128
        self.bring(index, count)

    def bring(self, index: int, count: int) -> None:
        """So much of what a leg still has arrives."""
        leg = self.legs[index]
        piece, self.later[index] = bytes(self.later[index][:count]), self.later[index][count:]
        if leg is not None:
            self.shell.feed(leg, piece, self.now_us)

    def leg(self, index: int) -> RxLeg | None:
        """The leg, which comes back when it was lost."""
        leg = self.legs[index]
        if leg is None or leg.key not in self.shell.rx.legs:
            self.later[index].clear()
            self.heard[index] = LegSaid(self.said)
            self.legs[index] = leg = self.shell.up(index, self.greeted_bytes, self.features, self.now_us)
        return leg

    def frame(self, seq: int, offset: int, length: int, right: bool, hashed: bool) -> bytes:
        """DATA with the stream's bytes, or the wrong ones."""
        content = (TRUE if right else FALSE)[offset : offset + length]
        payload_hash = xxhash.xxh3_64_intdigest(content) ^ (not hashed)
        return encode_header(Kind.DATA, length, seq, offset, payload_hash) + content

    def right_frame(self) -> bytes:
        """The next frame of an honest tx."""
        length = min(1 + self.script.number(0, 12), STREAM_BYTES - self.next_offset)
        if not length:
            return b""
        seq, offset = len(self.cut), self.next_offset
        self.cut.append((seq, offset, length))
        self.next_offset += length
        return self.frame(seq, offset, length, True, True)

    def lie(self) -> bytes:
        """A frame with values near those that rx expects."""
        script, rx = self.script, self.shell.rx.reassembly
        seq = script.number(rx.due_seq)
        offset = script.number(script.choose((rx.due_offset, rx.written, self.next_offset)))
        shape = script.byte()
        if shape & 8:
            return encode_control(Kind.END, seq, offset)
        room = max(0, STREAM_BYTES - offset)
        length = min(script.number(FRAME_BYTES, 14), room)
        if shape & 16 or not length:  # more than will ever come
            return encode_header(Kind.DATA, script.number(FRAME_BYTES, 32), seq, offset, 0)
        return self.frame(seq, offset, length, bool(shape & 1), not shape & 2)

    # ---- one step -------------------------------------------------------------------------------
    def step(self) -> None:
        """One decision of the script."""
        script, rx = self.script, self.shell.rx
        self.steps += 1
        op, index = script.byte() % 16, script.byte() % LEGS
        if op <= 3:
            self.say(index, self.right_frame())
        elif op == 4 and self.cut:
            self.say(index, self.frame(*script.choose(self.cut), not script.byte() & 1, not script.byte() & 1))
        elif op == 5:
            self.say(index, self.lie())
        elif op == 6:
            self.say(index, encode_control(Kind.END, len(self.cut), self.next_offset))
        elif op == 7:
            self.say(index, any_message(script, rx.reassembly.due_seq, rx.reassembly.due_offset))
        elif op == 8:
            self.say(index, mended(script.take(script.byte())))
        elif op == 9:
            self.say(index, script.take(script.byte()))
        elif op == 10:
            own = rx.digest.own
            self.say(index, encode_control(Kind.SUM, payload=own.value() if own is not None else b"x"))
        elif op == 11:
            self._lose(index)
        elif op == 12:
            self.bring(index, script.number(FRAME_BYTES, 16))
        elif op == 13:
            self._output()
        elif op == 14:
            self.shell.piece_bytes = script.choose((1, 7, 39, 41, KIB, 1 << 30))
        else:
            self._time()

    def _lose(self, index: int) -> None:
        leg = self.legs[index]
        if leg is not None and leg.key in self.shell.rx.legs and self.script.byte() % 2:
            self.shell.lose(leg, self.now_us, closed_by_peer=bool(self.script.byte() % 2))
            self.later[index].clear()
        else:  # the same number greets again
            self.legs[index] = None

    def _output(self) -> None:
        room = self.script.byte()
        if room < 64:
            self.shell.open_bytes = room
            return
        self.shell.open(self.now_us, None if room < 192 else (room - 191) * 64)

    def _time(self) -> None:
        rx = self.shell.rx
        self.now_us += self.script.choose((1, 1000, TICK_US, S_US, RX_SILENT_US))
        while (wanted := rx.next_dial(self.now_us)) is not None:
            rx.dialling.on_over(wanted[0])
            if self.leg(wanted[0] % LEGS) is None or wanted[0] not in rx.numbered:
                break
        self.shell.timer(self.now_us)
        for leg in rx.silent(self.now_us):
            self.shell.lose(leg, self.now_us, closed_by_peer=False)
        rx.heartbeats(self.now_us)
        rx.next_ack(self.now_us)

    def after(self) -> None:
        """What the shell does when a leg was driven, and what must hold then."""
        rx = self.shell.rx
        while rx.talkers:
            leg = rx.talkers.pop()
            assert len(leg.outbox) <= 64 * KIB // HEADER_BYTES, "it says more than it hears"
            leg.outbox.clear()
        if rx.reassembly.complete() and not rx.digest.asking:
            rx.ask_digest()
        if rx.reassembly.complete() and rx.digest.verified and not rx.done:
            rx.on_done()
        rx.check()
        assert rx.reassembly.memory_bytes() <= WINDOW_BYTES_MIN
        assert len(rx.reassembly._entries) <= FRAMES_MAX
        assert len(rx.legs) <= LEGS < LEGS_MAX
        self.check_output()

    def check_output(self) -> None:
        """Nothing comes out that was not sent."""
        output = self.shell.output
        assert len(output) == self.shell.rx.reassembly.written
        self.said.check(output, self.checked)
        self.checked = len(output)

    def end(self) -> None:
        """The same for the whole."""
        self.check_output()
        if self.shell.rx.checksum:
            self.said.check_hashes(self.shell.output)


def in_records(sealer: Sealer, data: bytes) -> bytes:
    """Messages as records, also where the last one is not whole."""
    out = bytearray()
    while len(data) >= HEADER_BYTES:
        end = HEADER_BYTES + int.from_bytes(data[4:8], "big")
        if end <= len(data):
            out += sealer.messages(data[:end])
        else:  # a record of the wrong size
            out += sealer.opening(data[:HEADER_BYTES]) + sealer.opening(data[HEADER_BYTES:])
        data = data[end:]
    return bytes(out + (sealer.opening(data) if data else b""))


def run(data: bytes, sealed: bool = False) -> None:
    """Play a script."""
    stream = Stream(Script(data), sealed)
    small = patch.object(reassembly, "WINDOW_BYTES_START", START_BYTES)  # memory that has to grow
    with small if data[:1] >= b"\x80" else contextlib.nullcontext(), contextlib.suppress(*ENDS):
        while stream.script and stream.steps < OPS_MAX:
            stream.step()
            stream.after()
    stream.end()


def run_sealed(data: bytes) -> None:
    """The same on sealed legs."""
    run(data, sealed=True)
