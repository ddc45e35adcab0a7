"""The secret of a program, and what it does with it when a connection is made: knock, where we dial, or admit.

Of the legs that come after the first one nobody needs the key: the handshake of each makes a secret, and a leg that
knows one of those belongs to the stream.
"""

import os
import socket
import time

from spake2 import SPAKE2_A, SPAKE2_B
from spake2.ed25519_basic import NotOnCurve
from spake2.spake2 import SPAKEError

from viamillipede.aio.channel import Channel, KnockRefused, hear
from viamillipede.aio.clock import now_us
from viamillipede.aio.refusals import KeyRefused, OpeningRefused
from viamillipede.config import KEY_BYTES, KIB, LEGS_MAX, S_US, Config
from viamillipede.errors import FrameError
from viamillipede.protocol import hello
from viamillipede.protocol.attempts import Attempts
from viamillipede.protocol.hello import Hello, Mode
from viamillipede.protocol.noise import CIPHERS, Handshake, NotSealedForUs, hkdf
from viamillipede.protocol.sealing import Opener, Sealer
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    TAG_BYTES,
    Answer,
    Opening,
    Verdict,
    decode_answer_untrusted,
)

PHRASES_BURST, PHRASE_US = 5, 10 * S_US  # wrong phrases, of everybody together: each of them is a guess
_SPOKEN = b"viamillipede"
_TRIAL_BYTES, _TRIALS = 64 * KIB, 4
SLOW_NS = 6_000  # for _TRIAL_BYTES, 10 GB/s: what takes longer is worth the way to another core


def _handle(secret: bytes) -> bytes:
    """What names a secret without telling anything of it."""
    return hkdf(secret, b"handle", 2)[0][: hello.HANDLE_BYTES]


def trial_ns() -> dict[int, int]:
    """How long each suite takes here for _TRIAL_BYTES, by its bit: without AES in hardware the second is faster."""
    data, out = bytes(_TRIAL_BYTES), bytearray(_TRIAL_BYTES + TAG_BYTES)
    took = {}
    for suite, cipher in hello.SUITES.items():
        aead, trials = CIPHERS[cipher][0](bytes(KEY_BYTES)), []
        for number in range(_TRIALS):
            began = time.perf_counter_ns()
            aead.encrypt_into(number.to_bytes(12), data, None, out)
            trials.append(time.perf_counter_ns() - began)
        took[suite] = min(trials)  # the others were disturbed
    return took


class Keys:
    """The key or phrase of `config`, and the secrets that our legs have made."""

    def __init__(self, config: Config) -> None:
        self._key = config.key.data if config.key is not None else b""
        self._phrase = config.phrase.data if config.phrase is not None else b""
        self._kind = "phrase" if self._phrase else "key"
        self._attempts = Attempts(PHRASES_BURST, PHRASE_US) if self._phrase else Attempts()
        self._dials = bool(config.addresses)
        self._join = b""  # dialling: the secret by which further legs belong to the first one
        self._joins: dict[bytes, bytes] = {}  # listening: such secrets by their handles
        self._trial_ns = trial_ns()
        fastest = min(self._trial_ns, key=lambda suite: self._trial_ns[suite])
        self._suites = sum(suite for suite in hello.SUITES if suite >= fastest)

    def __repr__(self) -> str:
        return "<Keys>"

    def _noise(self, initiator: bool, psk: bytes, prologue: bytes) -> Handshake:
        return Handshake(initiator, hello.HANDSHAKE_CIPHER, psk, os.urandom(KEY_BYTES), prologue)

    # ---- dialling -------------------------------------------------------------------------------
    async def knock(self, sock: socket.socket, opening: Opening) -> Channel:
        """Prove to whoever listens that we have the key, and have that proved; `opening` is what we will say then.

        KnockRefused, FrameError, OSError. The caller sets the time limit.
        """
        mode = Mode.JOIN if self._join else Mode.PHRASE if self._phrase else Mode.FIRST
        head = Hello(mode, _handle(self._join) if self._join else hello.NO_HANDLE).encode()
        channel = Channel(sock)
        offer = hello.encode_offer(self._suites, opening)
        if mode is Mode.PHRASE:
            spake = SPAKE2_A(self._phrase, idA=_SPOKEN, idB=_SPOKEN)
            await channel.say(head, spake.start())
            theirs = await self._hear_welcome(sock, hello.PHRASE_BYTES)
            noise = self._noise(True, _finish(spake, theirs), head)
            self._count_guess()  # whoever answers can tell by what follows whether it was right
            await channel.say(noise.write(offer))
        else:
            noise = self._noise(True, self._join or self._key, head)
            await channel.say(head, noise.write(offer))
        message = await self._hear_welcome(sock, hello.MESSAGE_BYTES)
        try:
            cipher = hello.decode_choice(noise.read(message))
        except NotSealedForUs:
            raise NotSealedForUs(f"it does not have our {self._kind}") from None
        if mode is Mode.PHRASE:
            self._attempts.on_success("")
        return _sealed(sock, noise, cipher, mode)

    def _count_guess(self) -> None:
        """One more who answers may guess the phrase. FrameError: there were too many, of all addresses together."""
        if not self._attempts.allowed("", now_us()):
            raise FrameError("too many have answered there who did not know the phrase")
        self._attempts.on_failed("", now_us())

    async def _hear_welcome(self, sock: socket.socket, count: int) -> bytes:
        """The message in a welcome. KnockRefused."""
        wanted = min(ANSWER_BYTES, hello.WELCOME_BYTES + count)
        heard = await hear(sock, wanted, "closed before it answered")
        if heard[5] != Verdict.ACCEPTED:
            raise KnockRefused(decode_answer_untrusted(await hear(sock, ANSWER_BYTES, "closed in its answer", heard)))
        heard = await hear(sock, hello.WELCOME_BYTES + count, "closed in its welcome", heard)
        return bytes(heard[hello.WELCOME_BYTES :])

    # ---- listening ------------------------------------------------------------------------------
    async def admit(self, sock: socket.socket, head: bytearray, host: str) -> Channel:
        """Who has knocked has the key, or belongs to a leg that had. `head`: what was heard of the hello.

        OpeningRefused, FrameError, OSError. The caller sets the time limit.
        """
        head = await hear(sock, hello.HELLO_BYTES, "closed in its hello", head)
        said = hello.decode_hello_untrusted(head)
        psk = self._secret_of(said, host)
        if said.mode is Mode.PHRASE:  # it counts until the opposite is proved: many may try at a time
            self._attempts.on_failed("", now_us())
        channel = Channel(sock)
        message = await hear(sock, said.message_bytes(), "closed in its hello", check=False)
        welcome = hello.encode_welcome()
        if said.mode is Mode.PHRASE:
            spake = SPAKE2_B(self._phrase, idA=_SPOKEN, idB=_SPOKEN)
            await channel.say(welcome, spake.start())
            psk = _finish(spake, message)
            message = await hear(sock, hello.MESSAGE_BYTES, "closed in its hello", check=False)
        noise = self._noise(False, psk, bytes(head))
        try:
            offered, opening = hello.decode_offer(noise.read(message))
        except NotSealedForUs:
            if said.mode is Mode.FIRST:
                self._count_failure(host)
            raise KeyRefused(f"it has another {self._kind}") from None
        if said.mode is Mode.PHRASE:
            self._attempts.on_success("")
        suite = hello.choose_suite(offered, self._suites)
        await channel.say(welcome, noise.write(hello.encode_choice(suite)))
        return _sealed(sock, noise, hello.SUITES[suite], said.mode, opening)

    def _secret_of(self, said: Hello, host: str) -> bytes:
        """What the hello must be sealed with; b"" if that is still to be found out. OpeningRefused."""
        if said.mode is Mode.JOIN:
            if said.handle not in self._joins:
                raise OpeningRefused("it belongs to a stream that we do not have", Answer(Verdict.UNKNOWN))
            return self._joins[said.handle]
        if (said.mode is Mode.PHRASE) != bool(self._phrase):
            raise KeyRefused(f"it comes with a {'key' if self._phrase else 'phrase'}, and we have a {self._kind}")
        if self._phrase and not self._attempts.allowed("", now_us()):  # anybody's is a guess
            raise OpeningRefused("too many have come with another phrase", Answer(Verdict.LATER))
        return self._key

    def _count_failure(self, host: str) -> None:
        """It has another key. Nobody who has ours is held up by that. OpeningRefused: it has come too often."""
        if not self._attempts.allowed(host, now_us()):
            raise OpeningRefused("it has come with another key too often", Answer(Verdict.LATER))
        self._attempts.on_failed(host, now_us())

    def is_slow(self, channel: Channel) -> bool:
        """Whether what the channel is sealed with takes so long here that another core should do it."""
        assert channel.sealer is not None
        return any(
            cipher == channel.sealer.suite and self._trial_ns[suite] > SLOW_NS for suite, cipher in hello.SUITES.items()
        )

    # ---- both -----------------------------------------------------------------------------------
    def on_leg(self, secret: bytes) -> bytes:
        """A leg of our stream has come up: others may belong to it. Returns its handle, for `forget`; b"" if none."""
        if not secret:
            return b""
        if self._dials:
            self._join = self._join or secret
            return b""
        handle = _handle(secret)
        self._joins[handle] = secret
        if len(self._joins) > LEGS_MAX:
            del self._joins[next(iter(self._joins))]
        return handle

    def forget(self, handle: bytes) -> None:
        """The stream has ended."""
        self._joins.pop(handle, None)


def _finish(spake: SPAKE2_A | SPAKE2_B, message: bytes | bytearray) -> bytes:
    """The key that the two messages make; 32 bytes, which are the same at both sides if the phrase is. FrameError."""
    try:
        key: bytes = spake.finish(bytes(message))
    except (SPAKEError, NotOnCurve, ValueError):
        raise FrameError("a message that no phrase makes") from None
    return key


def _sealed(sock: socket.socket, noise: Handshake, cipher: str, mode: Mode, opening: Opening | None = None) -> Channel:
    ours, theirs, secret = noise.split(cipher)
    return Channel(sock, Sealer(ours), Opener(theirs), b"" if mode is Mode.JOIN else secret, opening)
