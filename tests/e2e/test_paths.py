"""Several paths: who is preferred, who shares how much, who may carry how much; and how many legs there are.

What a path has carried is counted by a proxy in front of rx. No test asks how fast anything is: a limit is
checked as a bound, and a slow source is one that waits until rx has delivered what it said before.
"""

import errno
import os
import re
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.helpers import KIB, LOOPBACK, MIB, Side, Stage, read_all, read_exactly, read_some, some_bytes, whole
from tests.e2e.proxy import UP, Proxy

PIECE = 64 * KIB
BURST_S = 0.1  # what was not used of a limit may be used for so long
_DIAG_BY_FAMILY, _DUMP, _CONGESTION = 20, 0x301, 4  # linux/sock_diag.h, netlink.h (request, root, match), inet_diag.h

pytestmark = pytest.mark.slow


def carried(proxy: Proxy) -> int:
    """Bytes from tx that the living connections have passed on."""
    return int(proxy.call(lambda: sum(link.passed[UP] for link in proxy.links)))


def say_slowly(tx: Side, rx: Side, pieces: int) -> None:
    """A piece at a time, the next when rx has delivered it."""
    for number in range(pieces):
        piece = some_bytes(PIECE, number)
        tx.write(piece)
        assert read_exactly(rx.output, PIECE) == piece


def done(tx: Side, rx: Side) -> None:
    """The end of the input, and of both."""
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)


# Preference and shares ------------------------------------------------------------------------------------------


def test_a_slow_source_goes_over_the_first_path(stage: Stage) -> None:
    rx = stage.rx()
    first, second = stage.proxy(rx), stage.proxy(rx)
    tx = stage.tx_words("tx", LOOPBACK, first.port, "tx", LOOPBACK, second.port, "verbose", 3)
    tx.hear(r": up$", times=8)
    say_slowly(tx, rx, 64)
    whole_bytes = carried(first) + carried(second)
    assert whole_bytes >= 64 * PIECE
    assert carried(first) >= 0.95 * whole_bytes
    done(tx, rx)


def test_weights_are_shares(stage: Stage) -> None:
    rx = stage.rx()
    first, second = stage.proxy(rx), stage.proxy(rx)
    paths = ("tx", LOOPBACK, first.port, "weight", 1, "tx", LOOPBACK, second.port, "weight", 3)
    tx = stage.tx_words(*paths, "threads", 4, "verbose", 3)
    tx.hear(r": up$", times=4)
    say_slowly(tx, rx, 64)
    whole_bytes = carried(first) + carried(second)
    assert abs(carried(first) - whole_bytes / 4) <= whole_bytes / 10
    done(tx, rx)


def test_a_path_that_does_not_answer_leaves_its_share_to_the_other(stage: Stage) -> None:
    rx = stage.rx()
    unused = stage.hold(socket.create_server((LOOPBACK, 0)))
    port = unused.getsockname()[1]
    unused.close()
    tx = stage.tx_words("tx", LOOPBACK, port, "weight", 9, "tx", LOOPBACK, rx.port, "weight", 1)
    whole(rx, tx, some_bytes(2 * MIB))
    assert f"not reached: {LOOPBACK}:{port}: Connection refused" in tx.closing_line()


# Limits ---------------------------------------------------------------------------------------------------------


def watched(rx: Side, began: float, length: int, look: Callable[[float, int], None]) -> None:
    """Read so much from rx; `look` is told how many seconds after `began` how many bytes there were."""
    count = 0
    while count < length:
        count += len(read_some(rx.output))
        look(time.monotonic() - began, count)


@pytest.mark.parametrize("threads", [(), ("threads", 1)])
def test_a_limit_of_all_is_a_bound(stage: Stage, threads: tuple[object, ...]) -> None:
    limit, length = 2 * MIB, 5 * MIB
    rx = stage.rx()
    began = time.monotonic()
    tx = stage.tx_words("limit", "2M", "tx", LOOPBACK, rx.port, *threads)
    tx.feed([some_bytes(length)])

    def look(seconds: float, count: int) -> None:
        assert count <= limit * (seconds + BURST_S) + limit // 10  # the last frame is paid for afterwards

    watched(rx, began, length, look)
    assert time.monotonic() - began >= (length - limit // 5) / limit
    done_reading(tx, rx)


def test_limits_of_paths_hold_for_each(stage: Stage) -> None:
    """The first is preferred; the second carries what the first may not."""
    limits, length = (MIB, 2 * MIB), 6 * MIB
    rx = stage.rx()
    proxies = (stage.proxy(rx), stage.proxy(rx))
    began = time.monotonic()
    first, second = (("tx", LOOPBACK, proxy.port, "limit", limit) for proxy, limit in zip(proxies, limits, strict=True))
    tx = stage.tx_words(*first, *second)
    tx.feed([some_bytes(length)], then_close=False)

    def look(_: float, count: int) -> None:
        for proxy, limit in zip(proxies, limits, strict=True):
            passed = carried(proxy)
            seconds = time.monotonic() - began
            assert passed <= limit * (seconds + BURST_S) + limit // 10 + PIECE  # greetings and heartbeats

    watched(rx, began, length, look)
    assert min(map(carried, proxies)) > MIB // 2, "one of them had nothing to carry"
    done(tx, rx)


def done_reading(tx: Side, rx: Side) -> None:
    """As `done`, where the feeding has closed the input."""
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)


# Where from -----------------------------------------------------------------------------------------------------


def test_via_is_where_a_path_comes_from(stage: Stage) -> None:
    rx = stage.rx("verbose", 3)
    paths = ("tx", LOOPBACK, rx.port, "via", "127.0.0.9", "tx", "127.0.0.2", rx.port, "via", "127.0.0.8")
    tx = stage.tx_words(*paths, "threads", 4, "verbose", 3)
    tx.hear(r": up$", times=4)
    tx.write(b"from everywhere")
    assert read_exactly(rx.output, 15) == b"from everywhere"
    rx.signal(signal.SIGUSR1)
    seen = {}
    for leg in range(4):
        match = rx.hear(rf"^ +{leg}  \S*?(127\.0\.0\.\d+)\S*")
        seen[leg] = match[1]
    assert seen == {0: "127.0.0.9", 1: "127.0.0.8", 2: "127.0.0.9", 3: "127.0.0.8"}
    done(tx, rx)


def test_a_via_that_is_not_ours_is_told(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx, "via", "192.0.2.1", "wait", 1)
    tx.end_input()
    assert "Cannot assign requested address" in tx.ends(3)
    rx.signal(signal.SIGTERM)
    rx.ends(128 + signal.SIGTERM)


# How the legs are made ------------------------------------------------------------------------------------------


def test_how_many_legs_there_are_is_nobody_s_worry(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx, "verbose", 3)
    tx.hear(r": up$", times=8)
    tx.feed([some_bytes(8 * MIB)])
    read_exactly(rx.output, 8 * MIB)
    done_reading(tx, rx)
    assert tx.closing("legs?") >= 8 and tx.closing("restarts?") == 0


@pytest.mark.parametrize("threads", [1, 3])
def test_a_number_of_legs_is_kept(stage: Stage, threads: int) -> None:
    rx = stage.rx()
    tx = stage.tx(rx, "threads", threads)
    tx.feed([some_bytes(8 * MIB)], then_close=False)
    read_exactly(rx.output, 8 * MIB)
    done(tx, rx)
    assert tx.closing("legs?") <= threads and rx.closing("legs?") <= threads


def congestion_of(port: int) -> set[str]:
    """The algorithms of the established connections to that port of this host, as the kernel tells everybody."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4) as netlink:
        netlink.settimeout(30)
        established, ask_congestion = 1 << 1, 1 << (_CONGESTION - 1)
        body = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, ask_congestion, established)
        netlink.send(struct.pack("=IHHII", 16 + len(body), _DIAG_BY_FAMILY, _DUMP, 1, 0) + body)
        found = set[str]()
        while True:
            data = netlink.recv(1 << 20)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                message, data = data[16:length], data[(length + 3) & ~3 :]
                if kind == 2:  # NLMSG_ERROR
                    pytest.skip(os.strerror(-struct.unpack_from("=i", message)[0]))
                if kind == 3:  # NLMSG_DONE
                    return found
                if int.from_bytes(message[6:8]) == port:  # where it goes to
                    found |= set(_attribute(message[72:], _CONGESTION))


def _attribute(data: bytes, wanted: int) -> list[str]:
    found = []
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if kind == wanted:
            found.append(data[4:length].rstrip(b"\0").decode())
        data = data[(length + 3) & ~3 :]
    return found


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="asks Linux for the algorithms")
def test_congestion_is_the_algorithm_of_the_legs(stage: Stage) -> None:
    settings = Path("/proc/sys/net/ipv4")
    default = (settings / "tcp_congestion_control").read_text().strip()
    names = (settings / "tcp_allowed_congestion_control").read_text().split()
    other = next((name for name in names if name != default), None)
    if other is None:
        pytest.skip(f"only {default} is allowed to all")
    for words, name in ((("congestion", other), other), ((), default)):
        rx = stage.rx()
        tx = stage.tx(rx, *words, "threads", 2, "verbose", 3)
        tx.hear(r": up$", times=2)
        assert congestion_of(rx.port) == {name}
        done(tx, rx)


def test_a_congestion_that_the_kernel_does_not_have_is_told(stage: Stage) -> None:
    tx = stage.tx(1, "congestion", "nosuch", stdin=stage.pipe()[0])
    assert re.search(r"congestion: 'nosuch' cannot be used, .+", tx.ends(2))


def test_the_second_address_of_this_host_takes_part(stage: Stage) -> None:
    """127.0.0.2 is another address of the same rx: it gets what the first may not carry."""
    rx = stage.rx("verbose", 3)
    try:
        socket.create_server(("127.0.0.2", 0)).close()
    except OSError as error:
        assert error.errno == errno.EADDRNOTAVAIL
        pytest.skip("this system has one loopback address only")
    tx = stage.tx_words("tx", LOOPBACK, rx.port, "weight", 3, "tx", "127.0.0.2", rx.port, "weight", 1, "threads", 2)
    say_slowly(tx, rx, 64)
    tx.signal(signal.SIGUSR1)
    sent = {}
    for leg in range(2):
        match = tx.hear(rf"^ +{leg}  127\.0\.0\.\d:\d+ +\w+ +\d+ +([0-9.]+) (\w*B) ")
        sent[leg] = float(match[1]) * {"B": 1, "KiB": KIB, "MiB": MIB}[match[2]]
    assert abs(sent[1] - sum(sent.values()) / 4) <= sum(sent.values()) / 10
    done(tx, rx)
