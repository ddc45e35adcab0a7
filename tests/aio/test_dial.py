"""Dialling as a race: who wins, who is tried when, what is said, and that nobody who lost stays open."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.aio.drive import until
from tests.aio.test_sockets import UNREACHED, V4, V6, ipv6, listening
from viamillipede.aio import sockets
from viamillipede.aio.sockets import DialError, dial
from viamillipede.config import CONNECT_US, DIAL_AGAIN_LASTS_US, MS_US, S_US, Address

LOOPBACK = "lo"


@contextlib.contextmanager
def nobody(host: str = V4) -> Iterator[int]:
    """A port that refuses, and that nobody else can get meanwhile."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that does not answer."""
    with socket.socket() as full:
        full.bind((V4, 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):  # the queue of those who wait has room for one
            yield full.getsockname()[1]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Every socket that is made from now on; all but those that the test closes itself must be closed at the end."""
    sockets_made: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *arguments: Any, **words: Any) -> None:
            super().__init__(*arguments, **words)
            sockets_made.append(self)

    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Recorded)
        yield sockets_made
    assert [sock for sock in sockets_made if sock.fileno() != -1] == []


def found(*targets: tuple[Any, ...]) -> Any:
    """What a resolver would find."""
    return [(socket.AF_INET6 if len(t) == 4 else socket.AF_INET, socket.SOCK_STREAM, 6, "", t) for t in targets]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *targets: tuple[Any, ...]) -> None:
    """Every name has these addresses."""
    answer = found(*targets)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)


# One address --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [V4, pytest.param(V6, marks=ipv6), "localhost"])
async def test_a_connection_comes_about(host: str, made: list[socket.socket]) -> None:
    with listening(None) as port:
        with await dial(Address(host, port), None) as sock:
            assert sock.getpeername()[1] == port and not sock.getblocking()


async def test_a_refusal_is_told_apart_and_told_at_once(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 3600 * S_US)
    with nobody() as port, pytest.raises(DialError, match=r"^Connection refused$") as caught:
        await dial(Address(V4, port), None)
    assert caught.value.refused


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "a" * 70])
@pytest.mark.parametrize("which", ["target", "via"])
async def test_a_name_that_does_not_resolve_is_no_refusal(host: str, which: str) -> None:
    with pytest.raises(DialError, match=r"(^|^via .*: no interface, and )cannot resolve: ") as caught:
        await dial(Address(host if which == "target" else V4, 1), host if which == "via" else None)
    assert not caught.value.refused


async def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]) -> None:
    monkeypatch.setattr(sockets, "CONNECT_US", 60 * MS_US)
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 5 * MS_US)
    with silent() as port, pytest.raises(DialError, match=r"^no answer$") as caught:
        before = len(made)
        await dial(Address(V4, port), None)
    assert not caught.value.refused
    assert len(made) - before > 2  # it was tried again, beside


async def test_no_descriptor_left_is_an_attempt_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(DialError, match=r"^Too many open files$") as caught:
        fail_sockets(patched, socket.AF_INET, OSError(24, "Too many open files"))
        await dial(Address(V4, 1), None)
    assert not caught.value.refused


async def test_who_is_cancelled_while_dialling_leaves_no_socket(made: list[socket.socket]) -> None:
    with silent() as port:
        before = len(made)
        task = asyncio.create_task(dial(Address(V4, port), None))
        await until(lambda: len(made) > before)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# Where it comes from ------------------------------------------------------------------------------------


async def test_the_source_address_is_ours_to_choose(made: list[socket.socket]) -> None:
    with listening(V4) as port:
        with await dial(Address(V4, port), "127.0.0.3") as sock:
            assert sock.getsockname()[0] == "127.0.0.3"


async def test_a_source_address_that_is_not_ours_is_no_refusal(made: list[socket.socket]) -> None:
    with listening(V4) as port, pytest.raises(DialError, match="Cannot assign requested address") as caught:
        await dial(Address(V4, port), UNREACHED)
    assert not caught.value.refused


@ipv6
async def test_targets_of_another_family_than_the_source_address_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    real = sockets.resolve

    async def resolve(host: str, port: int) -> list[Any]:
        return found((V6, port, 0, 0), (V4, port)) if host == "name" else await real(host, port)

    monkeypatch.setattr(sockets, "resolve", resolve)
    with listening(None) as port:
        with await dial(Address("name", port), "127.0.0.3") as sock:
            assert sock.getpeername() == ("::ffff:127.0.0.1", port) or sock.getpeername() == (V4, port)
            assert sock.getsockname()[0] == "127.0.0.3"


async def test_a_source_address_that_fits_no_target_says_so(made: list[socket.socket]) -> None:
    with pytest.raises(DialError, match=rf"^it cannot be reached from {V6}$") as caught:
        await dial(Address(V4, 1), V6)
    assert not caught.value.refused


def can_bind_to_device() -> bool:
    """Whether we may."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LOOPBACK.encode() + bytes(1))
        return True
    return False


@pytest.mark.skipif(not can_bind_to_device(), reason="the system does not let us bind to an interface")
async def test_an_interface_can_be_named(made: list[socket.socket]) -> None:
    with listening(V4) as port:
        with await dial(Address(V4, port), LOOPBACK) as sock:
            device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
            assert device.rstrip(bytes(1)) == LOOPBACK.encode()
        with await dial(Address(V4, port), V4) as sock:
            assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(bytes(1))


# A race of several --------------------------------------------------------------------------------------


async def test_the_first_answer_wins_and_nobody_else_is_asked(
    monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    with listening(V4) as port, socket.create_server((V4, 0)) as other:
        other.setblocking(False)
        resolve_to(monkeypatch, (V4, port), (V4, other.getsockname()[1]))
        with await dial(Address("name", port), None) as sock:
            assert sock.getpeername() == (V4, port)
        with pytest.raises(BlockingIOError):
            other.accept()


async def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 3600 * S_US)  # a refusal needs no waiting
    with nobody() as closed, listening(V4) as port:
        resolve_to(monkeypatch, (V4, closed), (V4, port))
        with await dial(Address("name", port), None) as sock:
            assert sock.getpeername() == (V4, port)


async def test_the_second_address_is_tried_beside_the_first_that_hangs(
    monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 20 * MS_US)
    with silent() as hanging, listening(V4) as port:
        resolve_to(monkeypatch, (V4, hanging), (V4, port))
        with await dial(Address("name", port), None) as sock:
            assert sock.getpeername() == (V4, port)


async def test_an_address_that_refused_is_not_tried_again_beside_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 5 * MS_US)
    monkeypatch.setattr(sockets, "CONNECT_US", 100 * MS_US)
    with silent() as hanging, nobody() as closed:
        resolve_to(monkeypatch, (V4, closed), (V4, hanging))
        tries = Tries(monkeypatch)
        with pytest.raises(DialError, match=r"^Connection refused$") as caught:
            await dial(Address("name", closed), None)
    assert caught.value.refused  # better than nothing
    assert tries.targets.count((V4, closed)) == 1 and tries.targets.count((V4, hanging)) > 1


class Tries:
    """What is tried, and for how long at most. The first `hang` tries hang; the others are real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hang: int = 0) -> None:
        self.targets: list[Any] = []
        self.lasts_us: list[int] = []
        self._hang, self._real = hang, sockets._connect
        monkeypatch.setattr(sockets, "_connect", self._connect)

    async def _connect(self, *arguments: Any) -> socket.socket:  # (what getaddrinfo found, ..., how long it may last)
        self.targets.append(arguments[0][4])
        self.lasts_us.append(arguments[-1])
        if len(self.lasts_us) > self._hang:
            return await self._real(*arguments)
        await asyncio.Event().wait()
        raise AssertionError("never")


async def test_a_fresh_try_wins_beside_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 5 * MS_US)
    tries = Tries(monkeypatch, hang=3)
    with listening(V4) as port:
        with await dial(Address(V4, port), None) as sock:
            assert sock.getpeername() == (V4, port)
    assert set(tries.targets) == {(V4, port)} and len(tries.targets) >= 4
    assert tries.lasts_us[0] == CONNECT_US and set(tries.lasts_us[1:]) == {DIAL_AGAIN_LASTS_US}


async def test_the_addresses_of_a_name_take_turns(monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 5 * MS_US)
    with listening(V4) as port, listening(V4) as other:
        resolve_to(monkeypatch, (V4, port), (V4, other))
        tries = Tries(monkeypatch, hang=3)
        with await dial(Address("name", port), None) as sock:
            assert sock.getpeername() in [(V4, port), (V4, other)]
    assert tries.targets[:4] == [(V4, port), (V4, other)] * 2
    assert tries.lasts_us[:4] == [CONNECT_US, CONNECT_US, DIAL_AGAIN_LASTS_US, DIAL_AGAIN_LASTS_US]


async def test_a_try_that_times_out_does_not_end_the_race(
    monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 3600 * S_US)
    monkeypatch.setattr(sockets, "DIAL_AGAIN_LASTS_US", 1 * MS_US)
    monkeypatch.setattr(sockets, "CONNECT_US", 60 * MS_US)
    with silent() as port, pytest.raises(DialError, match=r"^no answer$"):
        await dial(Address(V4, port), None)


async def test_who_connects_at_the_same_moment_as_the_winner_is_closed(
    monkeypatch: pytest.MonkeyPatch, made: list[socket.socket]
) -> None:
    monkeypatch.setattr(sockets, "DIAL_AGAIN_US", 20 * MS_US)
    both, ready, real = asyncio.Event(), list[socket.socket](), sockets._connect

    async def connect(*arguments: Any) -> socket.socket:
        sock = await real(*arguments)
        ready.append(sock)
        if len(ready) == 2:
            both.set()
        await both.wait()
        return sock

    monkeypatch.setattr(sockets, "_connect", connect)
    with listening(V4) as port:
        with await dial(Address(V4, port), None) as sock:
            assert sock in ready
            assert [each.fileno() for each in ready if each is not sock] == [-1]


async def test_an_error_of_ours_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(*_: Any) -> socket.socket:
        raise LookupError("a bug")

    monkeypatch.setattr(sockets, "_connect", connect)
    monkeypatch.setattr(sockets, "CONNECT_US", 50 * MS_US)
    with pytest.raises(LookupError):
        await dial(Address(V4, 1), None)


def fail_sockets(monkeypatch: pytest.MonkeyPatch, family: int, error: OSError) -> None:
    """No socket of this family can be made."""

    class Failing(socket.socket):
        def __init__(self, wanted: int = -1, *rest: Any, **words: Any) -> None:
            if wanted == family:
                raise error
            super().__init__(wanted, *rest, **words)

    monkeypatch.setattr(socket, "socket", Failing)


async def test_a_family_that_the_kernel_does_not_have_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(V4) as port, monkeypatch.context() as patched:
        resolve_to(patched, (V6, port, 0, 0), (V4, port))
        fail_sockets(patched, socket.AF_INET6, OSError(97, "Address family not supported by protocol"))
        with await dial(Address("name", port), None) as sock:
            assert sock.getpeername() == (V4, port)


async def test_one_refusal_among_several_failures_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody() as closed, monkeypatch.context() as patched:
        resolve_to(patched, (V4, closed), (V6, closed, 0, 0))
        fail_sockets(patched, socket.AF_INET6, OSError(97, "Address family not supported by protocol"))
        with pytest.raises(DialError, match="Address family not supported") as caught:
            await dial(Address("name", closed), None)
    assert caught.value.refused
