"""Listening, for either role: connections become legs, or are strangers.

A connection is a stranger until it is a leg. It costs a descriptor and a few bytes, for GREETING_US;
there are at most STRANGERS_MAX at a time, and the oldest makes room for one more. Strangers are
refused and counted, the first one is told of, and the stream goes on undisturbed.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from viamillipede.aio.clock import now_us
from viamillipede.aio.log import LEG, WARNING
from viamillipede.aio.refusals import KeyRefused, answering
from viamillipede.aio.sockets import descriptor_limit, listen, why
from viamillipede.config import STRANGERS_MAX, Address
from viamillipede.errors import FrameError

if TYPE_CHECKING:
    from viamillipede.aio.program import Program

ACCEPTS_PER_TURN = 64
TOLD_MAX = 256  # refusals for different reasons that are told of in a while


class Listener:
    """A program's listening sockets.

    welcome: makes a leg of a connection, and owns its socket from then on; what it raises says why there
    is none (FrameError, OSError, TimeoutError). told_us: after so long a refusal for the same reason is
    told again, and one of somebody else at once; 0: only the first one is. To be stopped, also if it was never started.
    """

    def __init__(
        self,
        program: "Program",
        bind: str | None,
        port: int,
        welcome: Callable[[socket.socket, Address], Awaitable[None]],
        told_us: int = 0,
    ) -> None:
        self._program, self._bind, self._welcome, self._told_us = program, bind, welcome, told_us
        self._keys_told: set[str] = set()  # hosts of which was told that they came with another key
        self._told: dict[tuple[str, str], int] = {}  # when who was told of for what
        self.sockets = program.service.sockets or listen(bind, port)
        self.strangers = 0
        self._strangers_max = min(STRANGERS_MAX, descriptor_limit() // 2)  # the stream needs descriptors too
        self._ungreeted: dict[asyncio.Task[None], Address] = {}  # who is no leg yet; oldest first

    def start(self) -> None:
        """Take connections, and say where."""
        for sock in self.sockets:
            self._listen_on(sock)
        host = self.sockets[0].getsockname()[0]
        of = self._bind or ("all addresses" if host in ("::", "0.0.0.0") else host)  # it may be a manager's socket
        self._program.log.say(WARNING, f"listening on port {self.port} of {of}")
        if self._program.keys is None and not _is_loopback(host):
            self._program.log.say(WARNING, "anyone who reaches this port can connect; 'key FILE' keeps others out")

    @property
    def port(self) -> int:
        """The port, also when the kernel has chosen it."""
        return int(self.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Give the port back; idempotent."""
        while self.sockets:
            with self.sockets.pop() as sock:
                self._program.loop.remove_reader(sock.fileno())

    def _listen_on(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:  # else it was closed meanwhile
            self._program.loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        program = self._program
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors: strangers make room, who waits in the backlog waits a little
                program.log.say(WARNING, f"cannot accept a connection: {why(error)}")
                for _ in range(len(self._ungreeted) // 2):
                    self._evict_stranger()
                program.loop.remove_reader(listening.fileno())
                program.loop.call_later(1, self._listen_on, listening)
                return
            sock.setblocking(False)
            if len(self._ungreeted) >= self._strangers_max:
                self._evict_stranger()
            peer = Address(address[0].removeprefix("::ffff:"), address[1])
            task = program.spawn(self._serve(sock, peer))
            if task is None:
                sock.close()
                return
            task.add_done_callback(lambda task, sock=sock: _close_if_cancelled(task, sock))  # type: ignore[misc]
            self._ungreeted[task] = peer

    def _evict_stranger(self) -> None:
        oldest = next(iter(self._ungreeted))
        self._on_stranger(self._ungreeted.pop(oldest), "it did not greet, and too many others did not either")
        oldest.cancel()

    async def _serve(self, sock: socket.socket, peer: Address) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with answering(sock):
                await self._welcome(sock, peer)
        except (FrameError, TimeoutError, OSError) as error:
            sock.close()
            if isinstance(error, FrameError):
                reason = str(error)
            else:
                reason = "it did not greet" if isinstance(error, TimeoutError) else f"{why(error)}, before it was a leg"
            self._on_stranger(peer, reason, keyed=isinstance(error, KeyRefused))
        except BaseException:
            sock.close()
            raise
        finally:
            self._ungreeted.pop(task, None)

    def _on_stranger(self, peer: Address, reason: str, keyed: bool = False) -> None:
        if self._program.outcome.done():
            return  # a leg of ours that had not greeted yet when the other side heard the end is no stranger
        self.strangers += 1
        level = WARNING if self._is_news(peer.host, reason, keyed) else LEG
        more = "; further ones are only counted" if level == WARNING and not (self._told_us or keyed) else ""
        self._program.log.say(level, f"refused a connection from {peer}: {reason}{more}")

    def _is_news(self, host: str, reason: str, keyed: bool) -> bool:
        """Whether it is to be told; who comes with another key is, once for each address."""
        if not self._told_us:
            news = self.strangers == 1 or (keyed and host not in self._keys_told and len(self._keys_told) < TOLD_MAX)
            if keyed and news:
                self._keys_told.add(host)
            return news
        now = now_us()
        self._told = {about: told for about, told in self._told.items() if now - told < self._told_us}
        if (host, reason) in self._told or len(self._told) >= TOLD_MAX:
            return False
        self._told[host, reason] = now
        return True


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _close_if_cancelled(task: "asyncio.Task[None]", sock: socket.socket) -> None:
    """It may have been cancelled before it began."""
    if task.cancelled():
        sock.close()
