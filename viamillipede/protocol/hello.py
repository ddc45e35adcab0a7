"""How a leg with a key opens, byte by byte: a hello from whoever dials, a welcome from whoever listens.

hello                                          welcome
offset bytes field                             offset bytes field
     0     4 magic b"vmlp"                          0     4 magic b"vmlp"
     4     1 version                                4     1 version
     5     1 opening (Opening.HELLO)                5     1 verdict (Verdict.ACCEPTED)
     6     1 mode (Mode)                            6     2 reserved, 0
     7     1 reserved, 0                            8       the message
     8    16 handle; 0 unless mode is JOIN
    24       the message

The messages are those of Noise_NNpsk0_25519_ChaChaPoly_SHA256 (noise.py), 56 bytes each, whose prologue is the
hello's first 24 bytes. The pre-shared key is the key (FIRST), or a secret that a leg made which was up before
(JOIN): its handle says which. With a phrase (PHRASE) the messages of hello and welcome are those of SPAKE2, 33
bytes each; a Noise message follows, under the key that SPAKE2 has made, and a second welcome with the other one.
The payloads of the Noise messages are

offset bytes field
     0     1 suites: for records, in the hello those that suit (bits), in the welcome the one that both use
     1     1 opening: what whoever dials says next, sealed: Opening.GREETING or Opening.CALL; in the welcome 0
     2     6 reserved, 0

A refusal comes in the place of the welcome, in clear: an answer (wire.py).
"""

from dataclasses import dataclass
from enum import IntEnum

from viamillipede.errors import FrameError
from viamillipede.protocol.noise import MESSAGE_BYTES_MIN
from viamillipede.protocol.wire import MAGIC, VERSION, Opening, Verdict

HANDSHAKE_CIPHER = "ChaChaPoly"
SUITES = {1: "AESGCM", 2: "ChaChaPoly"}  # AES-256-GCM where both processors are fast at it
PAYLOAD_BYTES = 8
HANDLE_BYTES = 16
HELLO_BYTES = 24  # without the message
WELCOME_BYTES = 8
MESSAGE_BYTES = MESSAGE_BYTES_MIN + PAYLOAD_BYTES
PHRASE_BYTES = 33  # of a message of SPAKE2 with its default parameters
NO_HANDLE = bytes(HANDLE_BYTES)


class Mode(IntEnum):
    """Which secret a hello is about."""

    FIRST = 0
    JOIN = 1
    PHRASE = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """The clear part of a hello."""

    mode: Mode
    handle: bytes = NO_HANDLE

    def encode(self) -> bytes:
        """HELLO_BYTES bytes."""
        return MAGIC + bytes([VERSION, Opening.HELLO, self.mode, 0]) + self.handle

    def message_bytes(self) -> int:
        """How long the message behind it is."""
        return PHRASE_BYTES if self.mode is Mode.PHRASE else MESSAGE_BYTES


def decode_hello_untrusted(data: bytes | bytearray) -> Hello:
    """HELLO_BYTES bytes, magic and version checked. FrameError if they cannot be one."""
    mode, handle = data[6], bytes(data[8:HELLO_BYTES])
    if mode not in Mode.__members__.values() or data[7] or any(handle) != (mode == Mode.JOIN):
        raise FrameError("a hello with values that cannot be")
    return Hello(Mode(mode), handle)


def encode_welcome() -> bytes:
    """WELCOME_BYTES bytes."""
    return MAGIC + bytes([VERSION, Verdict.ACCEPTED, 0, 0])


def encode_offer(suites: int, opening: Opening) -> bytes:
    """The payload of the message in a hello."""
    return bytes([suites, opening]).ljust(PAYLOAD_BYTES, b"\0")


def decode_offer(payload: bytes) -> tuple[int, Opening]:
    """Its suites and what follows. FrameError: another version's, although its key is ours."""
    if len(payload) != PAYLOAD_BYTES or payload[1] not in (Opening.GREETING, Opening.CALL):
        raise FrameError("a hello that offers what cannot be")
    return payload[0], Opening(payload[1])


def choose_suite(offered: int, ours: int) -> int:
    """The suite of a leg: the best one that suits both, else the one that is no slower anywhere."""
    return next((suite for suite in SUITES if offered & ours & suite), max(SUITES))


def encode_choice(suite: int) -> bytes:
    """The payload of the message in a welcome."""
    return bytes([suite]).ljust(PAYLOAD_BYTES, b"\0")


def decode_choice(payload: bytes) -> str:
    """The cipher of the leg's records. FrameError: there is none such."""
    if len(payload) != PAYLOAD_BYTES or payload[0] not in SUITES:
        raise FrameError("a welcome with a suite that cannot be")
    return SUITES[payload[0]]
