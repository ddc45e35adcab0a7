"""Listening, dialling, and the options that a leg's socket wants."""

import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import resource
import socket
import struct
import sys
import termios
import threading
from typing import Any

from viamillipede.config import (
    CONNECT_US,
    DIAL_AGAIN_LASTS_US,
    DIAL_AGAIN_US,
    KIB,
    RTO_US_MAX,
    S_US,
    USER_TIMEOUT_US,
    Address,
)
from viamillipede.errors import NoContact, UsageError

BACKLOG = 1024
_WRONG_SOURCE = (errno.EADDRNOTAVAIL, errno.EPERM, errno.ENODEV)  # what binding says, and connecting does not
_TCP_RTO_MAX_MS = 44  # linux/tcp.h since 6.15
NOTSENT_BYTES_MIN = 16 * KIB
_LINGER_ZERO = struct.pack("ii", 1, 0)


class DialError(Exception):
    """No leg came about. `refused`: the host is there and says that nobody listens. `reached`: somebody does."""

    def __init__(self, reason: str, refused: bool, reached: bool = False) -> None:
        super().__init__(reason)
        self.refused, self.reached = refused, reached


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


async def dial(address: Address, via: str | None) -> socket.socket:
    """A connection to the address, from `via` (an interface, or a source address); DialError says why there is none.

    Its IP addresses are tried in turn, DIAL_AGAIN_US apart, and the first that answers is taken (RFC 8305,
    section 5). So is one that was tried already, beside the first try: when a link comes back, TCP's own
    next try may be seconds away.
    """
    interface = via if via is not None and via in {name for _, name in socket.if_nameindex()} else None
    sources: dict[int, Any] = {}
    if via is not None and interface is None:
        try:
            sources = {found[0]: found[4] for found in await resolve(via, 0)}
        except DialError as error:
            raise DialError(f"via {via}: no interface, and {error}", refused=False) from error
    targets = await resolve(address.host, address.port)
    if sources:
        targets = [target for target in targets if target[0] in sources]
        if not targets:
            raise DialError(f"it cannot be reached from {via}", refused=False)
    race = _Race(targets, via)
    try:
        async with asyncio.timeout(CONNECT_US / S_US):
            for number in itertools.count():
                which = number % len(targets)
                lasts_us = CONNECT_US if number < len(targets) else DIAL_AGAIN_LASTS_US
                source = sources.get(targets[which][0])
                if (sock := await race.run(which, source, interface, lasts_us)) is not None:
                    return sock
    except TimeoutError:
        pass
    finally:
        await race.close()
    raise DialError(race.reason, race.refused)


class _Race:
    """Connections that are being tried at the same time. `targets`: what getaddrinfo says; `via`: see dial."""

    def __init__(self, targets: list[Any], via: str | None) -> None:
        self._targets, self._via = targets, via
        self._tries: dict[asyncio.Task[socket.socket], int] = {}
        self._hopeless: set[int] = set()  # targets that have said no
        self.reason, self.refused = "no answer", False

    async def run(self, which: int, source: Any, interface: str | None, lasts_us: int) -> socket.socket | None:
        """Try this target as well; the first connection there is within DIAL_AGAIN_US. DialError: there is no hope."""
        if which not in self._hopeless:
            connecting = _connect(self._targets[which], source, interface, lasts_us)
            self._tries[asyncio.create_task(connecting)] = which
        if not self._tries:
            return None
        ended, _ = await asyncio.wait(self._tries, timeout=DIAL_AGAIN_US / S_US, return_when=asyncio.FIRST_COMPLETED)
        for each in ended:
            error = each.exception()
            if error is None:
                del self._tries[each]
                return each.result()
            which = self._tries.pop(each)
            if not isinstance(error, OSError):
                raise error
            if not isinstance(error, TimeoutError):
                self._hopeless.add(which)
                self.reason = (
                    f"via {self._via}: {why(error)}" if self._via and error.errno in _WRONG_SOURCE else why(error)
                )
                self.refused |= isinstance(error, ConnectionRefusedError)
        if len(self._hopeless) == len(self._targets):
            raise DialError(self.reason, self.refused)
        return None

    async def close(self) -> None:
        """End what is still being tried; a connection that came about at the last moment is closed."""
        for each in self._tries:
            each.cancel()
        for result in await asyncio.gather(*self._tries, return_exceptions=True):
            if isinstance(result, socket.socket):
                result.close()


async def _connect(found: Any, source: Any, interface: str | None, lasts_us: int) -> socket.socket:
    family, kind, protocol, _, target = found
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if interface is not None:
            if not hasattr(socket, "SO_BINDTODEVICE"):
                raise OSError(errno.ENOTSUP, "this system cannot bind to an interface")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + bytes(1))
        if source is not None:
            sock.bind(source)
        async with asyncio.timeout(lasts_us / S_US):
            await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


def prepare_tx(sock: socket.socket, congestion: str) -> None:
    """Options of a leg at tx. No TCP_USER_TIMEOUT: it would kill a leg whose reader merely pauses."""
    _prepare(sock, congestion)


def check_congestion(name: str) -> None:
    """UsageError if the legs cannot have this congestion control; "": the system's own, they always can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            _set_congestion(probe, name)
        except OSError as error:
            reason = "the kernel does not have it" if error.errno == errno.ENOENT else why(error)
            raise UsageError(f"congestion: {name!r} cannot be used, {reason}; {_known_congestion()}") from error


def _known_congestion() -> str:
    try:
        with open("/proc/sys/net/ipv4/tcp_allowed_congestion_control") as file:
            names = file.read().split()
    except OSError:
        return "only Linux and FreeBSD let it be chosen"
    return f"allowed to all are {', '.join(names)}"


def _set_congestion(sock: socket.socket, name: str) -> None:
    if name and not hasattr(socket, "TCP_CONGESTION"):
        raise OSError(errno.ENOTSUP, "this system does not let it be chosen")
    if name:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())


def _prepare(sock: socket.socket, congestion: str) -> None:
    _set_congestion(sock, congestion)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # an older kernel: a fresh connection will be there before it tries again
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, RTO_US_MAX // 1000)


def limit_unsent(sock: socket.socket, frame_bytes: int) -> None:
    """At most about a frame may wait unsent in a leg's socket: more would be hoarded by a slow leg.

    Less would cost a fast one: with 256 KiB instead of a whole frame of 1 MiB tx needed 10 % more
    processor time per byte on loopback.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, max(frame_bytes, NOTSENT_BYTES_MIN))


def prepare_rx(sock: socket.socket, congestion: str) -> None:
    """Options of a leg at rx. Its heartbeats are never unread for long, so unacknowledged means dead."""
    _prepare(sock, congestion)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_US // 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def unacked_bytes(sock: socket.socket) -> int:
    """Bytes in the socket that the other host has not acknowledged yet."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def rtt_us(sock: socket.socket) -> tuple[int, int]:
    """The kernel's smoothed round trip and the shortest one; 0 where it does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return 0, 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 152)
    if len(info) < 152:
        return 0, 0
    return struct.unpack_from("=I", info, 68)[0], struct.unpack_from("=I", info, 148)[0]  # tcpi_rtt, tcpi_min_rtt


def segments_resent(sock: socket.socket) -> int:
    """How many segments the kernel has sent again on this connection; 0 where it does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return struct.unpack_from("=I", info, 100)[0] if len(info) == 104 else 0  # tcpi_total_retrans


def close_with_reset(sock: socket.socket) -> None:
    """Close at once; what is still in the socket is thrown away, and the other host is told."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()
