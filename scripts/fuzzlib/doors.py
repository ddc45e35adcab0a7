"""The opening of a connection, with the real code and a socket: both roles, who listens and who dials; with a key, with
a phrase, and in clear. The fuzzer is the other side. It has the key, and says what is right or something near it.
"""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any
from unittest.mock import patch

from spake2 import SPAKE2_A, SPAKE2_B

from viamillipede.aio import handshake, refusals
from viamillipede.aio.channel import Channel, KnockRefused
from viamillipede.aio.handshake import call, enter, greet, hear_call, hear_greeting, open_keys
from viamillipede.aio.refusals import answering
from viamillipede.config import MIB, MS_US, Config, Secret
from viamillipede.errors import FrameError
from viamillipede.protocol import hello
from viamillipede.protocol.hello import Hello, Mode
from viamillipede.protocol.noise import CIPHERS, Handshake, NotSealedForUs, hkdf
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    CALL_BYTES,
    GREETING_BYTES,
    TAG_BYTES,
    Answer,
    Call,
    Greeting,
    Opening,
    Verdict,
)

from .script import Script

KEY, OTHER_KEY, SECRET = bytes(range(32)), bytes(32), bytes(range(32, 64))
HANDLE = hkdf(SECRET, b"handle", 2)[0][: hello.HANDLE_BYTES]
PHRASE, EPHEMERAL = b"correct horse", b"e" * 32
GREETING = Greeting(bytes(range(1, 17)), 0, bytes(8), bytes(4), 0, MIB, MIB, "name").encode()
CALL = Call(b"receiver", 0, 0, 1, bytes(4)).encode()
ACCEPTED = Answer(Verdict.ACCEPTED, 0, b"receiver", MIB).encode()
LOCKS = (Config(), Config(key=Secret(KEY)), Config(phrase=Secret(PHRASE)))
BYTES_MAX = 16 * 1024
WAIT_US = 20 * MS_US  # for what does not come
_loop: list[asyncio.AbstractEventLoop] = []


class Other:
    """The other side, on a blocking descriptor of its own, in steps that never wait."""

    def __init__(self, sock: socket.socket, script: Script) -> None:
        self.sock, self._script = sock, script
        self.loop = asyncio.get_running_loop()

    async def say(self, data: bytes) -> None:
        """This, or something near it."""
        shape = self._script.byte()
        if shape & 3 == 3:
            where, piece = self._script.number(0, 8), bytearray(data)
            if shape & 4 and where < len(piece):
                piece[where] ^= 1 + self._script.byte() % 255
            if shape & 8:
                piece[where:where] = self._script.take(self._script.byte())
            if shape & 16:
                del piece[where:]
            shorter, data = len(piece) < len(data), bytes(piece)
            await self.loop.sock_sendall(self.sock, data[:BYTES_MAX])
            if shorter:  # else both would wait for each other
                self.sock.shutdown(socket.SHUT_WR)
            return
        await self.loop.sock_sendall(self.sock, data)

    async def hear(self, count: int) -> bytes:
        """So many bytes, or what comes."""
        heard = b""
        while len(heard) < count and (data := await self.loop.sock_recv(self.sock, count - len(heard))):
            heard += data
        return heard

    async def dial(self, keyed: bool, phrase: bool) -> tuple[Sealer, Opener] | None:
        """Say hello as one who dials; what the leg is sealed with."""
        if not keyed and not phrase:
            return None
        script, modes = self._script, tuple(Mode)
        shape = script.byte()
        mode = Mode.PHRASE if phrase else Mode.FIRST
        if shape & 3 == 3:
            mode = modes[shape // 4 % 3]
        head = Hello(mode, HANDLE if mode is Mode.JOIN else hello.NO_HANDLE).encode()
        psk = {Mode.JOIN: SECRET, Mode.FIRST: KEY if shape & 64 == 0 else OTHER_KEY}.get(mode, KEY)
        if mode is Mode.PHRASE:
            spake = SPAKE2_A(PHRASE, idA=b"viamillipede", idB=b"viamillipede")
            await self.say(head + spake.start())
            theirs = await self.hear(hello.WELCOME_BYTES + hello.PHRASE_BYTES)
            with contextlib.suppress(Exception):  # it is refused: then nothing fits
                psk = spake.finish(theirs[hello.WELCOME_BYTES :])
            head_said = b""
        else:
            head_said = head
        noise = Handshake(True, hello.HANDSHAKE_CIPHER, psk, EPHEMERAL, head)
        offer = hello.encode_offer(script.byte() % 4, Opening.CALL if shape & 128 else Opening.GREETING)
        if script.byte() % 16 == 15:
            offer = script.take(8)
        await self.say(head_said + noise.write(offer))
        welcome = await self.hear(hello.WELCOME_BYTES + hello.MESSAGE_BYTES)
        return self._finish(noise, welcome[hello.WELCOME_BYTES :])

    def _finish(self, noise: Handshake, message: bytes) -> tuple[Sealer, Opener] | None:
        if len(message) < hello.MESSAGE_BYTES:
            return None
        try:
            cipher = hello.decode_choice(noise.read(message))
        except NotSealedForUs:
            return None
        ours, theirs, _ = noise.split(cipher)
        return Sealer(ours), Opener(theirs)

    async def admit(self) -> tuple[Sealer, Opener] | None:
        """Welcome who says hello."""
        head = await self.hear(hello.HELLO_BYTES)
        if len(head) < hello.HELLO_BYTES or head[5] != Opening.HELLO:
            return None
        welcome, psk = hello.encode_welcome(), SECRET if head[6] == Mode.JOIN else KEY
        if head[6] == Mode.PHRASE:
            spake = SPAKE2_B(PHRASE, idA=b"viamillipede", idB=b"viamillipede")
            message = await self.hear(hello.PHRASE_BYTES)
            await self.say(welcome + spake.start())
            with contextlib.suppress(Exception):
                psk = spake.finish(message)
        message = await self.hear(hello.MESSAGE_BYTES)
        noise = Handshake(False, hello.HANDSHAKE_CIPHER, psk, EPHEMERAL, head)
        try:
            noise.read(message)
        except (NotSealedForUs, ValueError):
            return None
        suite = 1 + self._script.byte() % 2
        choice = hello.encode_choice(suite) if self._script.byte() % 16 != 15 else self._script.take(8).ljust(8, b"\0")
        await self.say(welcome + noise.write(choice))
        ours, theirs, _ = noise.split(tuple(CIPHERS)[suite - 1])
        return Sealer(ours), Opener(theirs)

    async def opening(self, sealed: tuple[Sealer, Opener] | None, *messages: bytes) -> None:
        """Greeting, call or answer."""
        for message in messages:
            if self._script.byte() % 8 == 7:
                message = self._script.take(len(message))
            await self.say(message if sealed is None else sealed[0].opening(message))


async def _play(script: Script, ours: socket.socket, theirs: socket.socket) -> None:
    flags = script.byte()
    keys = open_keys(LOCKS[flags % 3])
    other = Other(theirs, script)
    if keys is not None and flags & 32:
        keys.on_leg(SECRET)
    role = script.byte() % 5
    knows = flags & 64 == 0
    if role == 0:  # anything at all
        task = _listen(ours, keys, bool(flags & 128))
        await _both(task, _raw(other, script))
    elif role <= 2:
        wanted = bool(flags & 128)
        task = _listen(ours, keys, wanted)
        await _both(task, _dialler(other, flags % 3 if knows else (flags // 4) % 3, CALL if wanted else GREETING))
    else:
        task = _ask(ours, keys, rx=bool(flags & 128))
        await _both(task, _listener(other, rx=bool(flags & 128)))


async def _both(ours: Coroutine[Any, Any, None], theirs: Coroutine[Any, Any, None]) -> None:
    """Our side must come to its end by itself when the other one has left."""
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(ours)
        group.create_task(theirs)


async def _leaving(other: Other, steps: Coroutine[Any, Any, None]) -> None:
    try:
        with contextlib.suppress(OSError):
            await steps
    finally:
        other.sock.close()


async def _raw(other: Other, script: Script) -> None:
    await _leaving(other, other.say(script.take(600)))


async def _dialler(other: Other, lock: int, opening: bytes) -> None:
    async def steps() -> None:
        sealed = await other.dial(lock == 1, lock == 2)
        await other.opening(sealed, opening)
        await other.hear(ANSWER_BYTES + TAG_BYTES)

    await _leaving(other, steps())


async def _listener(other: Other, rx: bool) -> None:
    async def steps() -> None:
        sealed = await other.admit()
        await other.hear((CALL_BYTES if rx else GREETING_BYTES) + (0 if sealed is None else TAG_BYTES))
        await other.opening(sealed, ACCEPTED, *([GREETING] if rx else []))

    await _leaving(other, steps())


async def _listen(sock: socket.socket, keys: Any, call_wanted: bool) -> None:
    with sock, contextlib.suppress(FrameError, OSError):
        async with answering(sock):
            hearing = hear_call if call_wanted else hear_greeting
            found, channel = await hearing(sock, keys, "host")
            assert (channel.sealer is None) == (keys is None), "a side with a key talked to one without"
            assert isinstance(found, Call if call_wanted else Greeting)
            await channel.say(ACCEPTED)


async def _ask(sock: socket.socket, keys: Any, rx: bool) -> None:
    with sock, contextlib.suppress(FrameError, OSError, KnockRefused):
        channel: Channel = await enter(sock, keys, Opening.CALL if rx else Opening.GREETING, WAIT_US)
        assert (channel.sealer is None) == (keys is None), "a side with a key talked to one without"
        if rx:
            await call(channel, CALL, lasts_us=WAIT_US)
        else:
            await greet(channel, GREETING, lasts_us=WAIT_US)


def run(data: bytes) -> None:
    """Play a script."""
    if not _loop:
        _loop.append(asyncio.new_event_loop())
    ours, theirs = socket.socketpair()
    impatient = patch.object(handshake, "GREETING_US", WAIT_US), patch.object(refusals, "FAREWELL_US", WAIT_US)
    with ours, theirs, impatient[0], impatient[1]:
        ours.setblocking(False)
        theirs.setblocking(False)
        _loop[0].run_until_complete(_play(Script(data), ours, theirs))


def close() -> None:
    """Give the loop back."""
    while _loop:
        _loop.pop().close()
