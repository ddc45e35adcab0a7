"""A connection that is no leg yet: what is said on it first, in clear or sealed."""

import asyncio
import socket
from typing import TYPE_CHECKING, NamedTuple

from viamillipede.errors import FrameError
from viamillipede.protocol.wire import PREFIX_BYTES, TAG_BYTES, VERSION, Answer, Opening, check_prefix_untrusted

if TYPE_CHECKING:  # else who has no key would wait for the library
    from viamillipede.protocol.sealing import Opener, Sealer

State = tuple[str, bytes, int]  # cipher, key and count of one direction


class Sealed(NamedTuple):
    """A sealed channel, for another process of ours that goes on with it."""

    ours: State
    theirs: State

    def __repr__(self) -> str:
        return "Sealed(...)"


class AnotherVersion(FrameError):
    """The other side speaks a version that we do not."""

    def __init__(self, version: int) -> None:
        super().__init__(f"speaks version {version} of the protocol, we {VERSION}")


class ClosedEarly(FrameError):
    """The connection ended before all was said."""


class KnockRefused(FrameError):
    """Who listens does not let us in; `answer` says why. Nobody has proved that it is the one whom we look for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("refused")
        self.answer = answer


async def hear(
    sock: socket.socket, count: int, ended: str, received: bytes | bytearray = b"", check: bool = True
) -> bytearray:
    """`received`, and what comes up to `count` bytes. ClosedEarly, OSError.

    check: it begins with magic and version, which are looked at as they come. FrameError, AnotherVersion.
    """
    loop = asyncio.get_running_loop()
    heard = bytearray(received)
    while len(heard) < count:
        data = await loop.sock_recv(sock, count - len(heard))
        if not data:
            raise ClosedEarly(ended)
        heard += data
        if check:
            check_version_untrusted(heard)
    return heard


def check_version_untrusted(heard: bytes | bytearray) -> None:
    """FrameError if what has come is not one of us, AnotherVersion if one of another version."""
    version = check_prefix_untrusted(heard)
    if len(heard) >= PREFIX_BYTES and version != VERSION:
        raise AnotherVersion(version)


class Channel:
    """A socket, and, where there is a key, what seals and opens what is said on it.

    secret: of the handshake, by which later legs belong to this one. opening: what the other side says next.
    """

    def __init__(
        self,
        sock: socket.socket,
        sealer: "Sealer | None" = None,
        opener: "Opener | None" = None,
        secret: bytes = b"",
        opening: Opening | None = None,
    ) -> None:
        self.sock, self.sealer, self.opener, self.secret, self.opening = sock, sealer, opener, secret, opening

    def __repr__(self) -> str:
        return f"<Channel {'in clear' if self.sealer is None else 'sealed'}>"

    @property
    def cipher(self) -> str:
        """What seals it, in words; "" if it is in clear."""
        return "" if self.sealer is None else self.sealer.cipher

    def sealed(self, data: bytes) -> bytes:
        """A greeting, a call or an answer, as it goes into the socket; in this order."""
        return data if self.sealer is None else self.sealer.opening(data)

    def sealed_messages(self, data: bytes) -> bytes:
        """Whole messages, as they go into the socket; in this order."""
        return data if self.sealer is None else self.sealer.messages(data)

    async def say(self, *openings: bytes) -> None:
        """Say these. OSError."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, b"".join(self.sealed(each) for each in openings))

    async def hear(self, count: int, ended: str, received: bytes | bytearray = b"") -> bytearray:
        """A greeting, a call or an answer of `count` bytes. FrameError, AnotherVersion, OSError."""
        if self.opener is None:
            return await hear(self.sock, count, ended, received)
        record = await hear(self.sock, count + TAG_BYTES, ended, check=False)
        heard = bytearray(self.opener.opening(record))
        check_version_untrusted(heard)
        return heard

    def export(self) -> Sealed | None:
        """What `imported` goes on with; None: it is in clear."""
        if self.sealer is None or self.opener is None:
            return None
        return Sealed(self.sealer.export(), self.opener.export())

    @classmethod
    def imported(cls, sock: socket.socket, sealed: Sealed | None) -> "Channel":
        """What `export` gave, on the same connection."""
        if sealed is None:
            return cls(sock)
        from viamillipede.protocol.noise import CipherState
        from viamillipede.protocol.sealing import Opener, Sealer

        ours, theirs = (CipherState.imported(*state) for state in sealed)
        return cls(sock, Sealer(ours), Opener(theirs))
