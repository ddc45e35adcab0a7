"""Both sides of a door: who knocks at it, and who admits."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.aio.drive import Peer, greeting, tcp_pair
from viamillipede.aio.channel import Channel, KnockRefused, hear
from viamillipede.aio.keys import Keys
from viamillipede.aio.refusals import answering
from viamillipede.config import S_US, Address, RxConfig, Secret, TxConfig
from viamillipede.errors import FrameError
from viamillipede.protocol.hello import HELLO_BYTES, MESSAGE_BYTES, WELCOME_BYTES, Hello, decode_hello_untrusted
from viamillipede.protocol.wire import GREETING_BYTES, PREFIX_BYTES, TAG_BYTES, Opening, Verdict

KEY, ANOTHER = bytes(range(32)), bytes(range(1, 33))
PHRASE, WRONG = b"a thousand feet and more", b"a thousand feet and less"
Both = tuple[Channel | BaseException, Channel | BaseException]


class Clock:
    """Time that stands still unless the test moves it."""

    def __init__(self) -> None:
        self.now = 1000 * S_US


def _addresses(dials: bool) -> tuple[Address, ...]:
    return (Address("elsewhere", 1),) if dials else ()


def with_key(key: bytes = KEY, dials: bool = False) -> Keys:
    """A side with this key. `dials`: it does, and keeps what its legs have made for that; else it listens."""
    return Keys(RxConfig(key=Secret(key), addresses=_addresses(dials)))


def with_phrase(phrase: bytes = PHRASE, dials: bool = False) -> Keys:
    """A side with this phrase; as above."""
    return Keys(TxConfig(phrase=Secret(phrase), addresses=_addresses(dials)))


async def admit(keys: Keys, sock: socket.socket, host: str) -> Channel:
    """As a listener does."""
    async with answering(sock):
        return await keys.admit(sock, await hear(sock, PREFIX_BYTES + 1, "closed"), host)


async def meet(ours: Keys, theirs: Keys, host: str = "host", opening: Opening = Opening.GREETING) -> Both:
    """We knock at theirs: what comes of it at either side. The connection is closed if nothing does."""
    here, there = tcp_pair()

    async def knock() -> Channel:
        try:
            return await ours.knock(here, opening)
        except BaseException:
            here.close()
            raise

    async def answer() -> Channel:
        try:
            return await admit(theirs, there, host)
        except BaseException:
            there.close()
            raise

    found = await asyncio.gather(knock(), answer(), return_exceptions=True)
    return found[0], found[1]


@contextlib.asynccontextmanager
async def together(ours: Keys, theirs: Keys, opening: Opening = Opening.GREETING) -> AsyncIterator[tuple[Any, Any]]:
    """Both channels of a connection that was admitted."""
    here, there = await meet(ours, theirs, opening=opening)
    assert isinstance(here, Channel) and isinstance(there, Channel), (here, there)
    with here.sock, there.sock:
        yield here, there


async def comes_in(ours: Keys, theirs: Keys, host: str = "host") -> bool:
    """Whether we do, and are heard."""
    here, there = await meet(ours, theirs, host)
    if not isinstance(here, Channel) or not isinstance(there, Channel):
        for each in (here, there):
            assert isinstance(each, Channel | FrameError | OSError), each
            if isinstance(each, Channel):
                each.sock.close()
        return False
    with here.sock, there.sock:
        await here.say(greeting())
        await there.hear(GREETING_BYTES, "closed")
    return True


def verdict(found: Both) -> Verdict:
    """What who knocked was told."""
    assert isinstance(found[0], KnockRefused), found
    return found[0].answer.verdict


@contextlib.asynccontextmanager
async def recorded(keys: Keys) -> AsyncIterator[tuple[bytes, bytes]]:
    """What was said on a connection of who has the key: hello and greeting, and the welcome."""
    here, middle = tcp_pair()
    further, there = tcp_pair()
    with here, middle, further, there:
        knocking = asyncio.create_task(with_key().knock(here, Opening.GREETING))
        answering_it = asyncio.create_task(admit(keys, there, "host"))
        said = await Peer(middle).exactly(HELLO_BYTES + MESSAGE_BYTES)
        await Peer(further).say(said)
        welcome = await Peer(further).exactly(WELCOME_BYTES + MESSAGE_BYTES)
        await Peer(middle).say(welcome)
        await (await knocking).say(greeting())
        await answering_it
        yield said + await Peer(middle).exactly(GREETING_BYTES + TAG_BYTES), welcome


async def begun(make: Callable[..., Keys] = with_key) -> tuple[Keys, Keys, bytes]:
    """Both sides after a first leg, ours that has dialled and theirs that listens, and its handle there."""
    ours, theirs = make(dials=True), make()
    async with together(ours, theirs) as (here, there):
        assert ours.on_leg(here.secret) == b"", "nothing to be forgotten"
        return ours, theirs, theirs.on_leg(there.secret)


async def hello_of(keys: Keys) -> Hello:
    """With what it comes next."""
    here, there = tcp_pair()
    with here, there:
        knocking = asyncio.create_task(keys.knock(here, Opening.GREETING))
        said = await Peer(there).exactly(HELLO_BYTES)
        knocking.cancel()
        await asyncio.gather(knocking, return_exceptions=True)
    return decode_hello_untrusted(said)
