"""Readiness of the legs' sockets: callbacks that fire once for each time they are asked for.

The loop's own add_reader and add_writer cost five or six system calls for every change of mind
(libuv adds, removes and sets non-blocking anew), and a leg changes its mind once per frame. On
Linux the legs therefore have an epoll set of their own, which the loop watches as one descriptor:
one epoll_ctl(2) per change, none for what stays. Elsewhere the loop's methods do, behind the same
interface.
"""

import asyncio
import select
from collections.abc import Callable

READ, WRITE = 1, 4  # EPOLLIN and EPOLLOUT; the values are also used where there is no epoll
_TURN_EVENTS = 256


class Watch:
    """One socket's callbacks and which of them are wanted now."""

    __slots__ = ("fd", "on_readable", "on_writable", "wanted")

    def __init__(self, fd: int, on_readable: Callable[[], None], on_writable: Callable[[], None]) -> None:
        self.fd, self.on_readable, self.on_writable = fd, on_readable, on_writable
        self.wanted = 0


class Poller:
    """For systems without epoll: the loop's own methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, fd: int, on_readable: Callable[[], None], on_writable: Callable[[], None]) -> Watch:
        """Get to know a socket; nothing is wanted yet. The callbacks may not raise what they can handle."""
        return Watch(fd, on_readable, on_writable)

    def want(self, watch: Watch, event: int) -> None:
        """Call back once when the socket can READ or WRITE; wanting it twice is wanting it once."""
        if watch.wanted & event:
            return
        watch.wanted |= event
        if event == READ:
            self._loop.add_reader(watch.fd, self._fire, watch, READ)
        else:
            self._loop.add_writer(watch.fd, self._fire, watch, WRITE)

    def _fire(self, watch: Watch, event: int) -> None:
        self.forget(watch, event)
        (watch.on_readable if event == READ else watch.on_writable)()

    def forget(self, watch: Watch, event: int = READ | WRITE) -> None:
        """Want it no more; to be called before the socket is closed."""
        if watch.wanted & event & READ:
            self._loop.remove_reader(watch.fd)
        if watch.wanted & event & WRITE:
            self._loop.remove_writer(watch.fd)
        watch.wanted &= ~event

    def close(self) -> None:
        """Give the descriptor back, if there is one."""


class EpollPoller(Poller):
    """An epoll set whose members fire once (EPOLLONESHOT) for each time they are wanted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._epoll = select.epoll()
        self._watches: dict[int, Watch] = {}
        loop.add_reader(self._epoll.fileno(), self._on_events)

    def watch(self, fd: int, on_readable: Callable[[], None], on_writable: Callable[[], None]) -> Watch:
        """See Poller."""
        watch = self._watches[fd] = Watch(fd, on_readable, on_writable)
        self._epoll.register(fd, select.EPOLLONESHOT)
        return watch

    def want(self, watch: Watch, event: int) -> None:
        """See Poller."""
        if not watch.wanted & event:
            watch.wanted |= event
            self._epoll.modify(watch.fd, watch.wanted | select.EPOLLONESHOT)

    def _on_events(self) -> None:
        for fd, events in self._epoll.poll(0, _TURN_EVENTS):
            watch = self._watches.get(fd)
            if watch is None:
                continue  # closed by the callback of another one
            if events & ~(READ | WRITE):  # an error or a hang-up: whoever wants anything shall find out
                events |= READ | WRITE
            fired = watch.wanted & events
            watch.wanted &= ~fired
            if watch.wanted:  # ONESHOT has disarmed all of it
                self._epoll.modify(fd, watch.wanted | select.EPOLLONESHOT)
            if fired & READ:
                self._call(watch.on_readable)
            if fired & WRITE and self._watches.get(fd) is watch:
                self._call(watch.on_writable)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:  # as the loop treats its own callbacks: the others still get their turn
            self._loop.call_exception_handler({"message": "a leg's callback failed", "exception": error})

    def forget(self, watch: Watch, event: int = READ | WRITE) -> None:
        """See Poller."""
        if event == READ | WRITE:
            if self._watches.get(watch.fd) is watch:
                del self._watches[watch.fd]
                self._epoll.unregister(watch.fd)
            watch.wanted = 0
        elif watch.wanted & event:
            watch.wanted &= ~event
            self._epoll.modify(watch.fd, watch.wanted | select.EPOLLONESHOT)

    def close(self) -> None:
        """See Poller."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


def open_poller(loop: asyncio.AbstractEventLoop) -> Poller:
    """The best that the system has."""
    return EpollPoller(loop) if hasattr(select, "epoll") else Poller(loop)
