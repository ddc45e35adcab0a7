"""Both ends of the stream, which are ours: the bytes that tx is fed, and those that come out of rx.

They are gated. Nothing passes the byte at which a fault waits to happen, so it happens there, on any machine.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from .content import Content
from .plan import NEVER, Pace, Sink

LOOK_S = 0.01  # how often is looked at what no event tells of
TURN = 32  # pieces in a row, before others have their turn


class Flow:
    """How far both ends are, how far they may go, and who wants to know."""

    def __init__(self) -> None:
        self.fed = self.arrived = 0
        self.feed_limit = self.read_limit = NEVER
        self.may_end = True  # the source, once all was fed
        self.break_off = False  # the source gives no more
        self.reader_dies = False
        self.differs: int | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def tell(self) -> None:
        """Something has changed."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so; whoever makes it so calls `tell`."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def took(self, content: Content, data: bytes) -> None:
        """This has come out of rx."""
        if self.differs is None:
            self.differs = content.differs(self.arrived, data)
        self.arrived += len(data)
        self.tell()


async def _ready(fd: int, write: bool) -> None:
    """Wait for the descriptor; hang-ups count."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def ring() -> None:
        if not done.done():
            done.set_result(None)

    (loop.add_writer if write else loop.add_reader)(fd, ring)
    try:
        await done
    finally:
        (loop.remove_writer if write else loop.remove_reader)(fd)


async def feed(fd: int, content: Content, size: int, pace: Pace, flow: Flow) -> None:
    """Write the stream to `fd` and close it. Ends early, without complaint, when nobody reads any more."""
    os.set_blocking(fd, False)
    turn, burst = 0, pace.burst(0)
    try:
        while flow.fed < size and not flow.break_off:
            await flow.until(lambda: flow.fed < flow.feed_limit or flow.break_off)
            piece = content.piece(flow.fed, min(size, flow.feed_limit, flow.fed + burst) - flow.fed)
            try:
                count = os.write(fd, piece)
            except BlockingIOError:
                await _ready(fd, True)
                continue
            flow.fed += count
            burst -= count
            flow.tell()
            turn += 1
            if not burst:
                burst = pace.burst(flow.fed)
                if flow.fed <= pace.slow_bytes:
                    await asyncio.sleep(pace.pause_s)
            if not turn % TURN:
                await asyncio.sleep(0)
        await flow.until(lambda: flow.may_end or flow.break_off)
    except BrokenPipeError:
        return
    finally:
        os.close(fd)


async def open_for_writing(path: Path, given_up: Callable[[], bool]) -> int | None:
    """The writing end of a named pipe, as soon as somebody reads it; None once nobody will."""
    while not given_up():
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        await asyncio.sleep(LOOK_S)
    return None


async def drain(fd: int, content: Content, sink: Sink, flow: Flow) -> None:
    """Read what comes out until its end, or until the reader is to die; close it."""
    os.set_blocking(fd, False)
    rests = list(sink.rests)
    burst, turn = sink.pace.burst(0), 0
    try:
        while True:
            if rests and rests[0][0] <= flow.arrived:
                await asyncio.sleep(rests.pop(0)[1])
                continue
            await flow.until(lambda: flow.arrived < flow.read_limit or flow.reader_dies)
            if flow.reader_dies:
                return
            most = min(burst, flow.read_limit - flow.arrived, rests[0][0] - flow.arrived if rests else NEVER)
            try:
                data = os.read(fd, most)
            except BlockingIOError:
                await _ready(fd, False)
                continue
            if not data:
                return
            flow.took(content, data)
            burst -= len(data)
            turn += 1
            if not burst:
                burst = sink.pace.burst(flow.arrived)
                if flow.arrived <= sink.pace.slow_bytes:
                    await asyncio.sleep(sink.pace.pause_s)
            if not turn % TURN:
                await asyncio.sleep(0)
    finally:
        os.close(fd)


async def watch(path: Path, before: int, flow: Flow) -> None:
    """Notice how a file grows, which had `before` bytes; until cancelled."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            grown = os.stat(path).st_size - before
            if grown > flow.arrived:
                flow.arrived = grown
                flow.tell()
        await asyncio.sleep(LOOK_S)


def read_file(path: Path, before: bytes, content: Content, flow: Flow) -> None:
    """What is in the file in the end, behind what was there `before`."""
    flow.arrived = 0
    with path.open("rb") as file:
        if file.read(len(before)) != before:
            flow.differs = 0
            return
        while data := file.read(1 << 20):
            flow.took(content, data)
