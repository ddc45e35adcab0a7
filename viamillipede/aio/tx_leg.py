"""One leg at tx: greeted, accepted, up, lost, and again. It moves bytes; the session decides."""

import random
import socket
from typing import TYPE_CHECKING

from viamillipede.aio.channel import Channel
from viamillipede.aio.clock import now_us
from viamillipede.aio.handshake import greet
from viamillipede.aio.log import EVENT, FRAME, LEG, OPERATION, RESENT
from viamillipede.aio.poller import READ, WRITE, Watch
from viamillipede.aio.sockets import close_with_reset, limit_unsent, prepare_tx, unacked_bytes, why
from viamillipede.config import KIB, Address
from viamillipede.errors import FrameError
from viamillipede.protocol.send_window import Frame
from viamillipede.protocol.tx_session import RETIRED
from viamillipede.protocol.wire import RECORD_BYTES, Verdict

if TYPE_CHECKING:
    from viamillipede.aio.tx import Transmitter
    from viamillipede.protocol.sealing import Opener, Sealer


DONE = "done"
PIECE_BYTES = 2 * RECORD_BYTES  # of a frame are sealed at a time: so much memory a leg costs
ASIDE_BYTES = 64 * KIB  # a smaller piece is sealed sooner than a thread has begun


class TxConnection:
    """A leg's TCP connection: none, or the current one."""

    def __init__(self, program: "Transmitter", leg: int, address: Address) -> None:
        self._program, self.leg, self.address = program, leg, address
        self.sock: socket.socket | None = None
        self.restarts = 0
        self._buffers: list[memoryview] = []  # what of the current frame, and of a last word, is still to be sent
        self._informed = False  # rx has said on this leg how things stand
        self._busy = False  # with a frame
        self._frame: Frame | None = None  # the latest one
        self._frame_bytes = 0  # the size that the socket's limit suits
        self._watch: Watch
        self._stalled = False  # chaos: like a black hole
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._header, self._rest = b"", memoryview(b"")  # what of the current frame is still to be sealed
        self._aside = False  # a thread seals a piece of it
        self._held: list[bytes] = []  # what is to be said behind it
        self._sealed: memoryview | None = None  # of the program's pool, what the current piece is sealed into

    def __repr__(self) -> str:
        return f"leg {self.leg} to {self.address}"

    # ---- from the greeting to the answer --------------------------------------------------------
    async def introduce(self, channel: Channel, rank: int, *before: bytes) -> str:
        """Greet on a new connection, after `before`; the leg is up then, in the place of one that was doubted.

        Returns "", or why it is not up. FrameError, OSError, TimeoutError; SessionRefused or PeerLost if that is final.
        """
        session = self._program.session
        prepare_tx(channel.sock, self._program.config.congestion)
        answer = await greet(channel, *before, session.greeting(self.leg), lasts_us=session.answer_us())
        if answer.verdict is Verdict.ACCEPTED:  # rx has given up the one before
            self.drop("replaced by a fresh connection", closed_by_peer=False)
        reason = session.on_answer(self.leg, rank, answer, now_us())
        if not reason:
            self.address = session.book.states[rank].address
            self._up(channel)
        return reason

    def _up(self, channel: Channel) -> None:
        program, sock = self._program, channel.sock
        self.sock, self._sealer, self._opener = sock, channel.sealer, channel.opener
        self._buffers, self._informed, self._busy, self._stalled, self._frame_bytes = [], False, False, False, 0
        self._watch = program.poller.watch(sock.fileno(), self._on_readable, self._on_writable)
        program.poller.want(self._watch, READ)
        program.log.say(LEG, f"{self!r}: up")
        program.on_leg_up(self)

    def drop(self, reason: str, closed_by_peer: bool, reset: bool = True) -> None:
        """The leg is lost: its frames go to others. Idempotent."""
        sock, self.sock = self.sock, None
        if sock is None:
            return
        if closed_by_peer and self.silent():
            self._program.last_word.on_heard()
        self._program.poller.forget(self._watch)
        self._buffers, self._held, self._rest, self._aside = [], [], memoryview(b""), False
        self._give_back()
        if reset:
            close_with_reset(sock)
        else:
            sock.close()
        queued = self._program.session.on_leg_lost(self.leg, closed_by_peer, now_us(), random.random())
        self.restarts += reason not in (RETIRED, DONE)
        if self._program.session.done:
            reason = DONE  # however the other side closes it now
        elif queued:
            reason += f"; frames given to others: {queued}"
        self._program.log.say(LEG if self._program.outcome.done() else EVENT, f"{self!r}: {reason}")
        self._program.pump_soon()
        self._program.dialler.dial_soon()

    # ---- frames out -----------------------------------------------------------------------------
    def send(self, frame: Frame, payload: memoryview) -> None:
        """Carry a frame; the session hears on_idle when the socket has taken all of it."""
        log = self._program.log
        if log.verbose >= RESENT and frame.sends > 1:
            log.say(RESENT, f"{self!r}: frame {frame.seq} again, copy {frame.sends}")
        elif log.verbose >= FRAME:
            log.say(FRAME, f"{self!r}: {frame!r}")
        frame_bytes = self._program.session.frame_bytes(self.leg)
        if frame_bytes != self._frame_bytes and self.sock is not None:
            self._frame_bytes = frame_bytes
            limit_unsent(self.sock, frame_bytes)
        self._busy, self._frame = True, frame
        if self._sealer is not None:
            self._header, self._rest = frame.header, payload
            self._seal(self._sealer)
        else:
            self._buffers += [memoryview(frame.header), payload] if payload else [memoryview(frame.header)]
        self._flush()

    def _seal(self, sealer: "Sealer") -> None:
        """The next piece of the frame, at once or by a thread. What is said meanwhile waits behind the last one."""
        sealed, header, piece = self._program.take_buffer(), self._header, self._rest[:PIECE_BYTES]
        self._header, self._rest = b"", self._rest[PIECE_BYTES:]

        def seal() -> int:
            end = sealer.header(header, sealed) if header else 0
            return end + sealer.payload(piece, sealed[end:])

        if self._program.crew is None or len(piece) < ASIDE_BYTES:
            self._on_sealed(sealer, sealed, seal())
            return
        self._aside = True
        self._program.crew.submit(seal, lambda length: self._on_sealed_aside(sealer, sealed, length))

    def _on_sealed(self, sealer: "Sealer", sealed: memoryview, length: int) -> None:
        self._sealed = sealed
        self._buffers.append(sealed[:length])
        if not self._rest:
            self._buffers += [memoryview(sealer.messages(each)) for each in self._held]
            self._held.clear()

    def _on_sealed_aside(self, sealer: "Sealer", sealed: memoryview, length: int | OSError) -> None:
        if self.sock is None or sealer is not self._sealer:  # the leg was lost meanwhile
            self._program.buffers.append(sealed)
            return
        assert isinstance(length, int)
        self._aside = False
        self._on_sealed(sealer, sealed, length)
        self._flush()
        self._program.pump()

    def _unsealed(self) -> bool:
        """Whether part of the frame is still to be sealed: nothing else may come before that."""
        return self._aside or bool(self._rest)

    def _give_back(self) -> None:
        """The piece was sent, or is lost: what it was sealed into is free."""
        sealed, self._sealed = self._sealed, None
        if sealed is not None:
            self._program.buffers.append(sealed)

    def rebase(self) -> None:
        """The window has moved in memory: hold on to the new place, or a slow leg keeps all of the old one."""
        frame = self._frame
        if self._rest and frame is not None:
            self._rest = self._program.session.window.payload(frame)[-len(self._rest) :]
        if self._sealer is not None or not self._busy or frame is None or not self._buffers:
            return
        if self._buffers[-1].readonly:
            return  # nothing of a payload is left to send
        left = len(self._buffers[-1])
        if left <= frame.length:
            self._buffers[-1] = self._program.session.window.payload(frame)[-left:]

    def say(self, message: bytes) -> None:
        """A message, behind the current frame if there is one."""
        if self._unsealed():
            self._held.append(message)
            return
        self._buffers.append(memoryview(message if self._sealer is None else self._sealer.messages(message)))
        if len(self._buffers) == 1:
            self._flush()

    def silent(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._buffers and not self._unsealed()

    def crowded(self) -> bool:
        """Whether something else waits already behind the current frame."""
        return len(self._buffers) + len(self._held) > 2

    def _flush(self) -> None:
        sock = self.sock
        if sock is None or self._stalled or not self._buffers:
            return
        fault = self._program.chaos.next_fault() if self._busy else None
        if fault is not None and not self._suffer(sock, fault):
            return
        try:
            count = sock.sendmsg(self._buffers)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self.drop(why(error), closed_by_peer=isinstance(error, ConnectionError))
            return
        if self._program.log.verbose >= OPERATION:
            self._program.log.say(OPERATION, f"{self!r}: sent {count}")
        if count:
            self._program.session.on_progress(self.leg, count, now_us())
        while self._buffers and count >= len(self._buffers[0]):
            count -= len(self._buffers.pop(0))
        if self._buffers:
            self._buffers[0] = self._buffers[0][count:]
            self._program.poller.want(self._watch, WRITE)
        elif self._rest and self._sealer is not None and not self._aside:
            self._give_back()
            self._seal(self._sealer)
            self._flush()
        elif self._busy and not self._aside:
            self._busy = False
            self._give_back()
            session = self._program.session
            if session.legs[self.leg].hoards():  # as far as is known
                session.on_sample(self.leg, unacked_bytes(sock), now_us())
            session.on_idle(self.leg)

    def _on_writable(self) -> None:
        self._flush()
        self._program.pump()

    # ---- what rx says ---------------------------------------------------------------------------
    def _on_readable(self) -> None:
        sock, program = self.sock, self._program
        if sock is None:
            return
        buffer = program.receive_buffer
        program.poller.want(self._watch, READ)
        try:
            count = sock.recv_into(buffer) if self._opener is None else self._opener.read_all(sock.recv_into, buffer)
        except BlockingIOError:
            return
        except FrameError as error:
            self.drop(str(error), closed_by_peer=False)
            return
        except OSError as error:
            self.drop(why(error), closed_by_peer=isinstance(error, ConnectionError))
            return
        if not count:
            self.drop("closed by the receiver", closed_by_peer=True)
            return
        try:
            program.session.on_bytes_untrusted(self.leg, buffer[:count], now_us())
        except FrameError as error:
            self.drop(str(error), closed_by_peer=False)
            return
        if not self._informed:  # before, it might send what arrived long ago, again and again
            self._informed = True
            program.session.on_idle(self.leg)
        program.on_message(self)

    # ---- chaos ----------------------------------------------------------------------------------
    def _suffer(self, sock: socket.socket, fault: str) -> bool:
        """A fault on purpose; from here on the leg is lost the same way as in a real one. Whether to go on."""
        self._program.log.say(LEG, f"{self!r}: chaos, {fault}")
        if fault == "stall":
            self._stalled = True
            self._program.poller.forget(self._watch)
            return False
        if fault == "reset":
            self.drop("reset by chaos", closed_by_peer=False)
            return False
        if fault == "corrupt":
            self._corrupt()
            return True
        try:
            if fault == "truncate":
                half = self._buffers[-1]
                sock.sendmsg([*self._buffers[:-1], half[: len(half) // 2]])
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # it broke by itself at the same moment, or takes no more
            self._program.log.say(LEG, f"{self!r}: {why(error)}")
        self.drop(f"{fault} by chaos", closed_by_peer=False, reset=False)
        return False

    def _corrupt(self) -> None:
        """One byte of what is sent now is wrong; the frame itself stays as it is."""
        damaged = bytearray(self._buffers[-1])
        damaged[len(damaged) // 2] ^= 0x01
        self._buffers[-1] = memoryview(damaged)
