"""A TCP proxy on loopback that stands for a bad network: it breaks connections at a byte, or all of them on command."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

from .plan import Break

PIECE = 64 << 10
_LINGER_ZERO = struct.pack("ii", 1, 0)


class _Broken(Exception):
    """A pump has come to the byte at which its connection is to be broken."""


class Link:
    """One connection through the proxy: `near` to who dials, `far` to who listens."""

    def __init__(self, near: socket.socket, far: socket.socket, fault: Break | None, moving: asyncio.Event) -> None:
        self._near, self._far, self._fault, self._moving = near, far, fault, moving
        self._stop = asyncio.Event()
        self._deaf = False
        self._reset = False

    def reset(self) -> None:
        """Both ends see a reset."""
        self._reset = True
        self._stop.set()

    async def run(self, on_break: Callable[[str], None]) -> None:
        """Until both directions have ended, or it breaks."""
        ways = ((self._near, self._far, True), (self._far, self._near, False))
        pumps = {asyncio.create_task(self._pump(*way, on_break)) for way in ways}
        stop = asyncio.create_task(self._stop.wait())
        pending = set(pumps)
        try:
            while pending and not stop.done():
                done, _ = await asyncio.wait({*pending, stop}, return_when=asyncio.FIRST_COMPLETED)
                for pump in done & pending:
                    if (error := pump.exception()) is not None:
                        self._reset |= not isinstance(error, _Broken)
                        self._stop.set()
                pending -= done
                if self._stop.is_set():
                    break
        finally:
            for task in (*pumps, stop):
                task.cancel()
            await asyncio.gather(*pumps, stop, return_exceptions=True)
            for sock in (self._near, self._far):
                if self._reset:
                    with contextlib.suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                sock.close()

    async def _pump(
        self, source: socket.socket, target: socket.socket, up: bool, on_break: Callable[[str], None]
    ) -> None:
        loop, passed = asyncio.get_running_loop(), 0
        fault = self._fault if self._fault is not None and self._fault.up == up else None
        while data := await loop.sock_recv(source, PIECE):
            await self._moving.wait()
            if fault is not None and passed + len(data) >= fault.after:
                await loop.sock_sendall(target, data[: fault.after - passed])
                on_break(fault.kind)
                if fault.kind == "deaf":
                    self._deaf = True
                elif fault.kind == "flip":
                    rest = data[fault.after - passed :] or await loop.sock_recv(source, PIECE)
                    await loop.sock_sendall(target, bytes([rest[0] ^ 0x10]) + rest[1:] if rest else b"")
                else:
                    self._reset = fault.kind == "reset"
                    raise _Broken
                passed, fault = passed + len(data), None
            elif not self._deaf:
                await loop.sock_sendall(target, data)
                passed += len(data)
            if self._deaf:
                await self._stop.wait()
        await self._moving.wait()
        if not self._deaf:
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)


class Proxy:
    """Listens on `port`, its own. `breaks`: what happens to the first connections, in the order in which they come."""

    def __init__(
        self, target: tuple[str, int], breaks: tuple[Break | None, ...], on_break: Callable[[str], None]
    ) -> None:
        self._target, self._breaks, self._on_break = target, list(reversed(breaks)), on_break
        self._server: socket.socket | None = None
        self.port = 0
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._moving = asyncio.Event()
        self._moving.set()
        self._accepting: asyncio.Task[None] | None = None
        self._dialling: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen, again where it has done so before."""
        self._server = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._server.setblocking(False)
        self.port = int(self._server.getsockname()[1])
        self._accepting = asyncio.create_task(self._accept(self._server))

    async def stop(self) -> None:
        """Listen no more, and reset every connection. Idempotent."""
        tasks = [*self._dialling, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        links = list(self._links.values())
        self.reset(0)
        await asyncio.gather(*tasks, *links, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        self._server = self._accepting = None

    def reset(self, most: int) -> int:
        """Reset the oldest connections, at most so many, 0: all. How many there were."""
        chosen = list(self._links)[: most or None]
        for link in chosen:
            link.reset()
        return len(chosen)

    def hold(self, held: bool) -> None:
        """Nothing moves, and nobody is told; or all goes on."""
        (self._moving.clear if held else self._moving.set)()

    async def _accept(self, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._moving.wait()
            near, _ = await loop.sock_accept(server)
            task = asyncio.create_task(self._join(near))
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)

    async def _join(self, near: socket.socket) -> None:
        far = socket.socket()
        try:
            for sock in (near, far):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(far, self._target)
        except BaseException as error:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            near.close()
            far.close()
            if isinstance(error, OSError):  # nobody there: that is how it looks from outside too
                return
            raise
        link = Link(near, far, self._breaks.pop() if self._breaks else None, self._moving)
        task = self._links[link] = asyncio.create_task(link.run(self._on_break))
        task.add_done_callback(lambda _: self._links.pop(link, None))
