"""Where the connections of one stream come from when another process listens: over a socket between the two.

A message to the stream is a greeting, the address of who has greeted, how the connection is sealed, and the
connection itself (SCM_RIGHTS). A
message back says that the stream is complete, or how things stand.
"""

import pickle
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from viamillipede.aio.channel import Channel
from viamillipede.aio.log import LEG
from viamillipede.aio.refusals import answering
from viamillipede.aio.sockets import why
from viamillipede.config import KIB, Address
from viamillipede.errors import FrameError, PeerLost
from viamillipede.protocol.wire import GREETING_BYTES, Greeting, decode_greeting_untrusted
from viamillipede.views.snapshot import Snapshot

if TYPE_CHECKING:
    from viamillipede.aio.program import Program

MESSAGE_BYTES_MAX = 128 * KIB
DONE = b"done"
MESSAGES_PER_TURN = 64


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a doorway. Messages stay whole, and whoever is left alone is told."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES_MAX)
    return ends


def hand_over(doorway: socket.socket, channel: Channel, peer: Address, greeting: Greeting) -> None:
    """Give a connection that has greeted to its stream. OSError: it has ended, or does not come to take it."""
    message = greeting.encode() + pickle.dumps((peer, channel.export()))
    socket.send_fds(doorway, [message], [channel.sock.fileno()])


def read_news(doorway: socket.socket) -> bytes | Snapshot | None:
    """From the stream: DONE, or how things stand; None: it has ended. OSError, BlockingIOError."""
    message = doorway.recv(MESSAGE_BYTES_MAX)
    if not message:
        return None
    if message == DONE:
        return DONE
    snapshot = pickle.loads(message)  # from our own child
    assert isinstance(snapshot, Snapshot)
    return snapshot


class Doorway:
    """The stream's end; in the place of its listener.Listener.

    on_greeting: makes a leg of a connection that has greeted, or raises OpeningRefused or OSError.
    """

    def __init__(
        self,
        program: "Program",
        doorway: socket.socket,
        on_greeting: Callable[[Channel, Address, Greeting], None],
    ) -> None:
        self._program, self._doorway, self._on_greeting = program, doorway, on_greeting
        doorway.setblocking(False)

    def start(self) -> None:
        """Take connections."""
        self._program.loop.add_reader(self._doorway.fileno(), self._take)

    def stop(self) -> None:
        """Take no more; idempotent."""
        if self._doorway.fileno() >= 0:
            self._program.loop.remove_reader(self._doorway.fileno())
            self._doorway.close()

    def _take(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            try:
                message, fds, _, _ = socket.recv_fds(self._doorway, GREETING_BYTES + KIB, 1)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it has not read all that it was told
                message, fds = b"", []
            if not message:
                self._program.loop.remove_reader(self._doorway.fileno())
                self._program.fail(PeerLost("the process that listens has ended"))
                return
            if not fds:  # the kernel could not give us another descriptor
                self._program.log.say(LEG, "a connection was lost: too many descriptors are open")
                continue
            peer, sealed = pickle.loads(message[GREETING_BYTES:])  # from the process that has forked us
            greeting = decode_greeting_untrusted(message[:GREETING_BYTES])
            sock = socket.socket(fileno=fds[0])
            sock.setblocking(False)
            self._program.spawn(self._serve(Channel.imported(sock, sealed), peer, greeting))

    async def _serve(self, channel: Channel, peer: Address, greeting: Greeting) -> None:
        try:
            async with answering(channel.sock):
                self._on_greeting(channel, peer, greeting)
        except (FrameError, OSError) as error:
            channel.sock.close()
            reason = why(error) if isinstance(error, OSError) else str(error)
            self._program.log.say(LEG, f"refused a connection from {peer}: {reason}")

    def tell_done(self) -> None:
        """The stream is complete: another one may come in its place."""
        self._tell(DONE)

    def tell(self, snapshot: Snapshot) -> None:
        """How things stand."""
        self._tell(pickle.dumps(replace(snapshot, legs=())))  # these may be a thousand

    def _tell(self, message: bytes) -> None:
        try:
            self._doorway.send(message)
        except OSError as error:  # it has no time, or has ended: then `_take` hears of it
            self._program.log.say(LEG, f"who listens was not told: {why(error)}")
