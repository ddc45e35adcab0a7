"""Listening, and what a leg's socket is asked and told, over loopback."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.aio.drive import until
from viamillipede.aio.sockets import (
    NOTSENT_BYTES_MIN,
    check_congestion,
    close_with_reset,
    limit_unsent,
    listen,
    prepare_rx,
    prepare_tx,
    raise_descriptor_limit,
    rtt_us,
    unacked_bytes,
    why,
)
from viamillipede.config import USER_TIMEOUT_US
from viamillipede.errors import NoContact, UsageError

V4, V6 = "127.0.0.1", "::1"
UNREACHED = "192.0.2.1"  # TEST-NET-1: nobody has it


def has_ipv6() -> bool:
    """Whether this host has an IPv6 loopback address."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind((V6, 0))
        return True
    return False


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this host")


@contextlib.contextmanager
def listening(bind: str | None, port: int = 0) -> Iterator[int]:
    """The port that `listen` got."""
    listeners = listen(bind, port)
    try:
        assert listeners and not any(listener.getblocking() for listener in listeners)
        yield listeners[0].getsockname()[1]
    finally:
        for listener in listeners:
            listener.close()


def answers(host: str, port: int) -> bool:
    """Whether a connection comes about."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


# Listening --------------------------------------------------------------------------------------------------


@ipv6
def test_both_families_are_listened_on() -> None:
    with listening(None) as port:
        assert answers(V4, port) and answers(V6, port)


@pytest.mark.parametrize("lack", ["not known", "disabled"])
def test_without_ipv6_the_other_is_enough(monkeypatch: pytest.MonkeyPatch, lack: str) -> None:
    real = socket.create_server

    def without_ipv6(*arguments: Any, **words: Any) -> socket.socket:
        if words["family"] == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(*arguments, **words)

    if lack == "not known":
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    else:
        monkeypatch.setattr(socket, "create_server", without_ipv6)
    with listening(None) as port:
        assert answers(V4, port)
        assert not answers(V6, port) if has_ipv6() else True


def test_a_named_address_is_the_only_one() -> None:
    with listening(V4) as port:
        assert answers(V4, port)
        assert not answers("127.0.0.2", port)


@ipv6
def test_a_named_ipv6_address_is_the_only_one() -> None:
    with listening(V6) as port:
        assert answers(V6, port) and not answers(V4, port)


@pytest.mark.parametrize("bind", [None, V4])
def test_a_port_in_use_is_said_so(bind: str | None) -> None:
    with listening(bind) as port, pytest.raises(NoContact) as caught:
        listen(bind, port)
    assert str(caught.value) == f"cannot listen on {f'{bind}:' if bind else 'port '}{port}: Address already in use"


def test_a_port_can_be_used_again_at_once() -> None:
    with listening(V4) as port:
        with socket.create_connection((V4, port)):
            pass
    with listening(V4, port):
        pass


@pytest.mark.parametrize(
    ("bind", "reason"),
    [(UNREACHED, "Cannot assign requested address"), ("no.such.host.invalid", ""), ("a..b", ""), ("a" * 70, "")],
)
def test_an_address_that_cannot_be_bound_is_said_so(bind: str, reason: str) -> None:
    with pytest.raises(NoContact, match=f"cannot listen on {bind}.*: .*{reason}"):
        listen(bind, 0)


# A leg's socket ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame_bytes", "notsent_bytes"), [(1, NOTSENT_BYTES_MIN), (2 * NOTSENT_BYTES_MIN, 2 * NOTSENT_BYTES_MIN)]
)
def test_options_of_a_leg(pair: Any, frame_bytes: int, notsent_bytes: int) -> None:
    prepare_tx(pair[0], "")
    limit_unsent(pair[0], frame_bytes)
    prepare_rx(pair[1], "")
    assert all(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for sock in pair)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == notsent_bytes
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert pair[1].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_US // 1000
        assert pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0  # a reader that pauses may
    assert pair[1].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="the system does not let it be chosen")
def test_the_congestion_control_of_a_leg_is_ours_to_choose(pair: Any) -> None:
    check_congestion("reno")  # every Linux has it
    prepare_tx(pair[0], "reno")
    prepare_rx(pair[1], "reno")
    for sock in pair:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)) == b"reno"


def test_a_congestion_control_that_cannot_be_used_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    check_congestion("")
    with pytest.raises(UsageError, match=r"^congestion: 'nosuch' cannot be used, "):
        check_congestion("nosuch")
    monkeypatch.delattr(socket, "TCP_CONGESTION", raising=False)
    with pytest.raises(UsageError, match=r"does not let it be chosen|not supported"):
        check_congestion("reno")


async def test_what_the_other_host_has_not_acknowledged_is_counted(pair: Any) -> None:
    assert unacked_bytes(pair[0]) == 0
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += pair[0].send(bytes(1 << 16))
    await until(lambda: unacked_bytes(pair[0]) < sent)  # some of it is in the other end's buffer
    assert 0 < unacked_bytes(pair[0])
    received = 0
    while received < sent:
        received += len(await asyncio.get_running_loop().sock_recv(pair[1], 1 << 20))
    await until(lambda: unacked_bytes(pair[0]) == 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the kernel does not tell")
async def test_the_round_trip_over_loopback_is_short_but_known(pair: Any) -> None:
    pair[0].send(b"x")
    await until(lambda: unacked_bytes(pair[0]) == 0)
    smoothed_us, shortest_us = rtt_us(pair[0])
    assert 0 < shortest_us <= 2 * smoothed_us < 1_000_000


def test_a_kernel_that_tells_less_is_no_error(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        def getsockopt(self, *_: int) -> bytes:
            return bytes(151)

    assert rtt_us(Short()) == (0, 0)  # type: ignore[arg-type]
    monkeypatch.delattr(socket, "TCP_INFO", raising=False)
    assert rtt_us(pair[0]) == (0, 0)


async def test_a_reset_reaches_the_peer_and_throws_away_the_rest(pair: Any) -> None:
    loop = asyncio.get_running_loop()
    pair[0].send(b"thrown away")
    close_with_reset(pair[0])
    assert pair[0].fileno() == -1
    with pytest.raises(ConnectionResetError):
        while await loop.sock_recv(pair[1], 100):  # never an orderly end
            pass
        pytest.fail("closed, not reset")
    close_with_reset(pair[0])  # closed already


def test_an_error_has_words() -> None:
    assert why(OSError(2, "No such file or directory")) == "No such file or directory"
    assert why(OSError("made up")) == "made up"
    assert why(TimeoutError()) == "TimeoutError"


def test_the_descriptor_limit_is_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = max(256, soft // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        raise_descriptor_limit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_system_that_does_not_grant_its_own_limit_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_descriptor_limit()
