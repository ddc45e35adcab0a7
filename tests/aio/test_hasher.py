"""Giving a stream to its digest, at once or in a thread; and both programs with it, however slow that thread is."""

import asyncio
import hashlib
import os
import threading
import time
from typing import Any

import pytest
import xxhash

from tests.aio.drive import Pipe, give, receiving, take, transmitting, turns, until
from viamillipede.aio.hasher import Hasher
from viamillipede.config import KIB, MIB
from viamillipede.protocol.digest import StreamDigest
from viamillipede.protocol.wire import FEATURE_SHA256, FEATURE_XXH3


class Given(Hasher):
    """How often it said that it is done."""

    def __init__(self, feature: int | None) -> None:
        self.digest = None if feature is None else StreamDigest(feature)
        self.done = 0
        super().__init__(self.digest, self._count)

    def _count(self) -> None:
        assert not self.busy
        self.done += 1


async def test_no_digest_takes_nothing() -> None:
    given = Given(None)
    assert not given.active
    given.take(memoryview(b"some"))
    await turns()
    assert (given.taken, given.busy, given.done) == (0, False, 0)


async def test_a_quick_one_takes_at_once() -> None:
    given = Given(FEATURE_XXH3)
    assert given.active
    for piece in (b"some", b"", b"thing"):
        given.take(memoryview(piece))
        assert not given.busy
    await turns()
    assert given.taken == 9 and given.done == 0
    assert given.digest is not None and given.digest.value() == xxhash.xxh3_128(b"something").digest()


async def test_a_slow_one_takes_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    given, gate, threads = Given(FEATURE_SHA256), threading.Event(), []
    assert given.active and given.digest is not None
    real = given.digest.update

    def slow(data: memoryview) -> None:
        gate.wait(10)
        threads.append(threading.current_thread())
        real(data)

    monkeypatch.setattr(given.digest, "update", slow)
    given.take(memoryview(b"some"))
    await turns()
    assert given.busy and given.taken + given.done == 0
    with pytest.raises(AssertionError):
        given.take(memoryview(b"thing"))  # its memory would not be watched over
    gate.set()
    await until(lambda: given.done)
    assert given.taken == 4 and not given.busy
    given.take(memoryview(b"thing"))
    await until(lambda: given.done == 2)
    assert given.taken == 9
    assert given.digest.value() == hashlib.sha256(b"something").digest()
    assert {thread.name for thread in threads} == {"digest"}


# Both programs ----------------------------------------------------------------------------------------------


def slow_down(program: Any, every_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its digest takes so long for each piece."""
    digest = program.session.digest.own
    real = digest.update

    def update(data: memoryview) -> None:
        time.sleep(every_s)
        real(data)

    monkeypatch.setattr(digest, "update", update)


@pytest.mark.parametrize("size", [0, 1, 100 * KIB, 3 * MIB + 1])
@pytest.mark.parametrize("slow", ["tx", "rx"])
async def test_nobody_compares_before_both_have_taken_all(
    slow: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread may be far behind when the last byte, and the end, have been sent, or have arrived."""
    content = os.urandom(size)
    source, target = Pipe(*os.pipe()), Pipe(*os.pipe())
    try:
        async with (
            receiving(target.write_fd, digest="sha256") as (receiver, rx_task, port),
            transmitting(source.read_fd, port) as (transmitter, tx_task),
        ):
            await transmitter.contact.wait()
            await until(lambda: receiver.connections)
            slow_down(transmitter if slow == "tx" else receiver, 0.05, monkeypatch)
            async with asyncio.TaskGroup() as group:
                output = group.create_task(take(target.read_fd))
                await give(source.write_fd, content)
                source.close_write()
                for task in (tx_task, rx_task):
                    await task
            assert await output == content
        digests = [program.session.digest.own for program in (transmitter, receiver)]
        assert [str(digest) for digest in digests] == [f"sha256 {hashlib.sha256(content).hexdigest()}"] * 2
    finally:
        source.close()
        target.close()
