"""Listening, dialling, and the options that a leg's socket wants."""

import asyncio
import contextlib
import fcntl
import os
import resource
import socket
import struct
import sys
import termios
import threading
from typing import Any

from viamillipede.config import CONNECT_US, KIB, S_US, USER_TIMEOUT_US, Address
from viamillipede.errors import NoContact

BACKLOG = 1024
NOTSENT_BYTES_MIN = 64 * KIB
_LINGER_ZERO = struct.pack("ii", 1, 0)


class DialError(Exception):
    """No connection came about. `refused`: the host is there and says that nobody listens."""

    def __init__(self, reason: str, refused: bool) -> None:
        super().__init__(reason)
        self.refused = refused


def raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have: a thousand legs need a thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems call unlimited what they do not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def why(error: OSError) -> str:
    """An error as a person would say it."""
    if error.errno is not None and not isinstance(error, socket.gaierror):  # asyncio dresses up strerror
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def listen(bind: str | None, port: int) -> list[socket.socket]:
    """Listening sockets for `port` (0: the kernel chooses): IPv4 and IPv6, or what `bind` names. NoContact."""
    try:
        if bind is None:
            if socket.has_dualstack_ipv6():
                with contextlib.suppress(OSError):  # the kernel knows IPv6 but has it disabled
                    return [_nonblocking(_server(("::", port), socket.AF_INET6, dual=True))]
            return [_nonblocking(_server(("", port), socket.AF_INET))]
        found = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [_nonblocking(_server((bind, port), found[0][0]))]
    except OSError as error:
        raise NoContact(f"cannot listen on {Address(bind, port) if bind else f'port {port}'}: {why(error)}") from error
    except (UnicodeError, TypeError) as error:
        raise NoContact(f"cannot listen on {bind}: this cannot be a host's name") from error


def _server(address: tuple[str, int], family: int, dual: bool = False) -> socket.socket:
    return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=dual)


def _nonblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


async def resolve(host: str, port: int) -> list[Any]:
    """What getaddrinfo(3) says, at most CONNECT_US later; DialError.

    In a daemon thread of its own: a name server that does not answer can hold it for minutes, and the
    loop's own threads would hold the end of the program as well.
    """
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except OSError:
        pass  # not an address but a name
    except (UnicodeError, TypeError) as error:
        raise DialError("cannot resolve: this cannot be a host's name", refused=False) from error
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def ask() -> None:
        found: list[Any] | Exception
        try:
            found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits for this any more
            loop.call_soon_threadsafe(tell, found)

    def tell(found: list[Any] | Exception) -> None:
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        async with asyncio.timeout(CONNECT_US / S_US):
            return await answer
    except TimeoutError as error:
        raise DialError("cannot resolve: no name server answers", refused=False) from error
    except OSError as error:
        raise DialError(f"cannot resolve: {why(error)}", refused=False) from error


async def dial(address: Address, source: str | None) -> socket.socket:
    """A connection to the first of the address's IP addresses that answers; DialError says why none did."""
    sources = {found[0]: found[4] for found in await resolve(source, 0)} if source is not None else {}
    reason, refused = "no address", False
    for family, kind, protocol, _, target in await resolve(address.host, address.port):
        if source is not None and family not in sources:
            reason = f"it cannot be reached from {source}"
            continue
        try:
            return await _connect(socket.socket(family, kind, protocol), target, sources.get(family))
        except TimeoutError:
            reason = "no answer"
        except OSError as error:
            reason, refused = why(error), refused or isinstance(error, ConnectionRefusedError)
    raise DialError(reason, refused)


async def _connect(sock: socket.socket, target: Any, source: Any) -> socket.socket:
    try:
        sock.setblocking(False)
        if source is not None:
            sock.bind(source)
        async with asyncio.timeout(CONNECT_US / S_US):
            await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


def prepare_tx(sock: socket.socket) -> None:
    """Options of a leg at tx. No TCP_USER_TIMEOUT: it would kill a leg whose reader merely pauses."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def limit_unsent(sock: socket.socket, frame_bytes: int) -> None:
    """At most about a frame may wait unsent in a leg's socket: more would be hoarded by a slow leg.

    Less would cost a fast one: with 256 KiB instead of a whole frame of 1 MiB tx needed 10 % more
    processor time per byte on loopback.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, max(frame_bytes, NOTSENT_BYTES_MIN))


def prepare_rx(sock: socket.socket) -> None:
    """Options of a leg at rx. Its heartbeats are never unread for long, so unacknowledged means dead."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_US // 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def unacked_bytes(sock: socket.socket) -> int:
    """Bytes in the socket that the other host has not acknowledged yet."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def rtt_us(sock: socket.socket) -> int:
    """The kernel's smoothed round trip, or 0 where it does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 72)
    return int(struct.unpack_from("=I", info, 68)[0]) if len(info) >= 72 else 0  # tcpi_rtt in linux/tcp.h


def close_with_reset(sock: socket.socket) -> None:
    """Close at once; what is still in the socket is thrown away, and the other host is told."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()
