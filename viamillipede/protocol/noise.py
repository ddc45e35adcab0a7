"""The handshake: Noise_NNpsk0_25519_<cipher>_SHA256, as in the Noise Protocol Framework, revision 34.

    -> psk, e            both sides prove that they know the key `psk`; the ephemeral X25519 keys make what
    <- e, ee             follows secret also from whoever learns that key later

Two messages of an ephemeral key, 32 bytes, and a sealed payload. Randomness is handed in.
"""

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from viamillipede.config import KEY_BYTES
from viamillipede.errors import FrameError
from viamillipede.protocol.wire import TAG_BYTES

MESSAGE_BYTES_MIN = KEY_BYTES + TAG_BYTES  # of a handshake message without payload

Buffer = bytes | bytearray | memoryview


class Aead(Protocol):
    """What `cryptography` has for one key: the methods that write into a buffer of the caller's."""

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """`data` and its tag into `buf`, TAG_BYTES longer."""

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        """The other way round; InvalidTag if `data` was not sealed with this key, nonce and associated data."""


CIPHERS: dict[str, tuple[Callable[[bytes], Aead], str]] = {  # and the byte order of the nonce's counter
    "AESGCM": (AESGCM, "big"),
    "ChaChaPoly": (ChaCha20Poly1305, "little"),
}


class NotSealedForUs(FrameError):
    """Bytes that were not sealed with the key, or not in this place."""


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """HKDF of section 4.3, with HMAC-SHA256: 2 or 3 outputs of 32 bytes."""
    secret = hmac.digest(chaining_key, material, sha256)
    found, previous = [], b""
    for number in range(1, outputs + 1):
        previous = hmac.digest(secret, previous + bytes([number]), sha256)
        found.append(previous)
    return found


class CipherState:
    """A key and a counter, which is the nonce: each is used once (section 5.1)."""

    __slots__ = ("_aead", "_key", "_make", "_order", "cipher", "count")

    def __init__(self, cipher: str, key: bytes) -> None:
        self.cipher = cipher
        self._make, self._order = CIPHERS[cipher]
        self._key, self.count = key, 0
        self._aead = self._make(key)

    def __repr__(self) -> str:
        return f"<CipherState {self.cipher} {self.count}>"

    def _nonce(self, count: int) -> bytes:
        return bytes(4) + count.to_bytes(8, self._order)  # type: ignore[arg-type]

    def next_nonce(self) -> bytes:
        """The nonce of the next message; whoever takes it must use it."""
        nonce = self._nonce(self.count)
        self.count += 1
        return nonce

    def seal_into(self, data: Buffer, out: memoryview, about: bytes = b"") -> None:
        """`data` and a tag into `out`, TAG_BYTES longer."""
        self._aead.encrypt_into(self.next_nonce(), data, about, out)

    def open_into(self, data: Buffer, out: memoryview, about: bytes = b"") -> None:
        """What was sealed, into `out`, TAG_BYTES shorter. NotSealedForUs; `out` is worthless then."""
        try:
            self._aead.decrypt_into(self.next_nonce(), data, about, out)
        except InvalidTag:
            raise NotSealedForUs("what came was not sealed with our key") from None

    def rekey(self) -> None:
        """REKEY of section 4.2: nobody who learns the new key can learn the old one from it."""
        out = bytearray(KEY_BYTES + TAG_BYTES)
        self._aead.encrypt_into(self._nonce(2**64 - 1), bytes(KEY_BYTES), b"", out)
        self._key = bytes(out[:KEY_BYTES])
        self._aead = self._make(self._key)

    def export(self) -> tuple[str, bytes, int]:
        """For another process of ours that goes on with it: cipher, key, count. Nothing else may see this."""
        return self.cipher, self._key, self.count

    @classmethod
    def imported(cls, cipher: str, key: bytes, count: int) -> "CipherState":
        """What `export` gave."""
        state = cls(cipher, key)
        state.count = count
        return state


class Handshake:
    """One side of a handshake. `ephemeral`: 32 fresh random bytes; `prologue`: what both sides must agree on.

    The initiator calls `write`, then `read`; the responder `read`, then `write`; then both `split`.
    """

    def __init__(self, initiator: bool, cipher: str, psk: bytes, ephemeral: bytes, prologue: bytes) -> None:
        assert len(psk) == KEY_BYTES == len(ephemeral)
        name = f"Noise_NNpsk0_25519_{cipher}_SHA256".encode()
        self.initiator, self._cipher = initiator, cipher
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)
        self._theirs: X25519PublicKey | None = None
        self._hash = self._chaining_key = name.ljust(32, b"\0") if len(name) <= 32 else sha256(name).digest()
        self._state: CipherState
        self._mix_hash(prologue)
        self._psk = psk

    def __repr__(self) -> str:
        return f"<Handshake {'initiator' if self.initiator else 'responder'}>"

    @property
    def hash(self) -> bytes:
        """The handshake hash: 32 bytes that name this session, and are no secret."""
        return self._hash

    def _mix_hash(self, data: Buffer) -> None:
        self._hash = sha256(self._hash + data).digest()

    def _mix_key(self, material: bytes) -> None:
        self._chaining_key, key = hkdf(self._chaining_key, material, 2)
        self._state = CipherState(self._cipher, key)

    def _mix_psk(self) -> None:
        self._chaining_key, mixed, key = hkdf(self._chaining_key, self._psk, 3)
        self._mix_hash(mixed)
        self._state = CipherState(self._cipher, key)

    def _mix_ephemeral(self, public: bytes) -> None:
        """Where there is a psk, the keys of `e` are mixed into the chaining key as well (section 9.2)."""
        self._mix_hash(public)
        self._mix_key(public)

    def _mix_shared(self) -> None:
        assert self._theirs is not None
        try:
            self._mix_key(self._ephemeral.exchange(self._theirs))
        except ValueError:
            raise NotSealedForUs("its ephemeral key is no key") from None

    def write(self, payload: bytes = b"") -> bytes:
        """Our message: MESSAGE_BYTES_MIN bytes more than the payload. NotSealedForUs: their key was none."""
        public = self._ephemeral.public_key().public_bytes_raw()
        if self.initiator:
            self._mix_psk()
        self._mix_ephemeral(public)
        if not self.initiator:
            self._mix_shared()
        sealed = bytearray(len(payload) + TAG_BYTES)
        self._state.seal_into(payload, memoryview(sealed), self._hash)
        self._mix_hash(sealed)
        return public + bytes(sealed)

    def read(self, message: Buffer) -> bytes:
        """The payload of their message, at least MESSAGE_BYTES_MIN bytes. NotSealedForUs."""
        public, sealed = bytes(message[:KEY_BYTES]), bytes(message[KEY_BYTES:])
        if not self.initiator:
            self._mix_psk()
        self._mix_ephemeral(public)
        self._theirs = X25519PublicKey.from_public_bytes(public)
        if self.initiator:
            self._mix_shared()
        payload = bytearray(len(sealed) - TAG_BYTES)
        self._state.open_into(sealed, memoryview(payload), self._hash)
        self._mix_hash(sealed)
        return bytes(payload)

    def split(self, cipher: str) -> tuple[CipherState, CipherState, bytes]:
        """What we send with, what we receive with, and one more secret of 32 bytes that only both sides know.

        The first two are those of section 5.2, for the cipher that both agreed on; the third is the third
        output of the same HKDF.
        """
        first, second, more = hkdf(self._chaining_key, b"", 3)
        ours, theirs = (first, second) if self.initiator else (second, first)
        return CipherState(cipher, ours), CipherState(cipher, theirs), more
