"""The laboratory: its links are what they say, and nothing of it stays behind."""

import contextlib
import math
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netlab import TO_LEFT, TO_RIGHT, Lab, LabError, Link, build, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
UDP_IP_BYTES = 28  # headers
QUIET_S = 0.2  # when nothing has come for so long after the delay, nothing will
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 32, 33, 35  # of asm-generic/socket.h
PORT = 7000  # nobody else is there


@contextlib.contextmanager
def datagrams(lab: Lab, link: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket on each host, connected over a link."""
    with lab.left.open_socket(socket.SOCK_DGRAM) as left, lab.right.open_socket(socket.SOCK_DGRAM) as right:
        for end, own, other in ((left, 0, 1), (right, 1, 0)):
            names = (lab.links[link].left, lab.links[link].right)
            for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
                end.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
            end.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            end.bind((names[own], PORT))
            end.connect((names[other], PORT))
            end.settimeout(QUIET_S)
        yield left, right


def numbers(end: socket.socket) -> list[int]:
    """The first four bytes of all that comes, until nothing more comes."""
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(int.from_bytes(end.recv(2048)[:4]))
    return found


def burst(end: socket.socket, count: int, size: int = 4, first: int = 0) -> None:
    """Send numbered datagrams, as fast as the shuttle takes them."""
    for number in range(first, first + count):
        end.send(number.to_bytes(4) + bytes(size - 4))
        if number % 512 == 511:
            time.sleep(0.002)  # what is not read from the TUN device in time would be dropped there


def seconds_each(end: socket.socket, count: int) -> float:
    """Between one datagram and the next, of so many; by the kernel's clock, because we may be late to read them.

    A busy machine delivers some of them late; the median of all pairs that are half of them apart does not mind.
    """
    end.settimeout(PATIENCE_S)
    times_s: list[float] = []
    for _ in range(count):
        _, ((_, _, stamp),), _, _ = end.recvmsg(2048, 64)
        seconds, nanoseconds = map(int, struct.unpack("qq", stamp))
        times_s.append(seconds + nanoseconds / 1e9)
    each_s = statistics.median(times_s[number + count // 2] - times_s[number] for number in range(count - count // 2))
    return each_s / (count // 2)


def test_the_rate_is_kept_in_each_direction_and_after_a_change() -> None:
    with Lab([Link(40, queue_ms=1000, back=Link(20, queue_ms=1000))]) as lab, datagrams(lab) as (left, right):
        packet_bits, count = (1400 + UDP_IP_BYTES) * 8, 600
        for sender, receiver, rate_mbit in ((left, right, 40.0), (right, left, 20.0), (left, right, 80.0)):
            lab.links[0].set(TO_RIGHT, rate_mbit=max(40.0, rate_mbit))
            burst(sender, count, 1400)
            assert seconds_each(receiver, count) == pytest.approx(packet_bits / (rate_mbit * 1e6), rel=0.03)


def test_the_delay_is_kept() -> None:
    with Lab([Link(1000, delay_ms=20, back=Link(1000, delay_ms=10))]) as lab, datagrams(lab) as (left, right):
        took_s = []
        for _ in range(10):
            begin = time.monotonic()
            left.send(b"ping")
            right.send(right.recv(16))
            left.recv(16)
            took_s.append(time.monotonic() - begin)
        assert 0.030 <= min(took_s) < 0.033
        lab.links[0].set(delay_ms=1)
        begin = time.monotonic()
        left.send(b"ping")
        right.send(right.recv(16))
        left.recv(16)
        assert 0.002 <= time.monotonic() - begin < 0.028


def lost(seed: int, count: int, loss: float) -> set[int]:
    """The numbers of the datagrams that a link loses."""
    with Lab([Link(loss=loss, back=Link())], seed) as lab, datagrams(lab) as (left, right):
        burst(left, count)
        arrived = numbers(right)
        assert arrived == sorted(arrived), "packets have overtaken each other"
        counters = lab.links[0].counters()
        assert (counters.packets, counters.lost, counters.dropped) == (len(arrived), count - len(arrived), 0)
        return set(range(count)) - set(arrived)


def test_losses_are_as_many_as_asked_for_and_the_same_for_the_same_seed() -> None:
    count, loss = 10_000, 0.02
    first = lost(1, count, loss)
    assert abs(len(first) - count * loss) < 3 * math.sqrt(count * loss * (1 - loss))
    assert lost(1, count, loss) == first
    other = lost(2, count, loss)
    assert len(first & other) < len(first) / 4, "another seed loses the same packets"


def test_links_and_directions_have_their_own_dice() -> None:
    fates = []
    with Lab([Link(loss=0.5)] * 2) as lab:
        for link in (0, 1):
            with datagrams(lab, link) as (left, right):
                for sender, receiver in ((left, right), (right, left)):
                    burst(sender, 64)
                    fates.append(tuple(numbers(receiver)))
    assert len(set(fates)) == 4


def test_the_queue_drops_what_does_not_fit() -> None:
    # 100 packets of 1000 bytes; 20 fit, two or three leave while the others come.
    with Lab([Link(rate_mbit=1, queue_ms=160)]) as lab, datagrams(lab) as (left, right):
        burst(left, 100, 1000 - UDP_IP_BYTES)
        arrived = numbers(right)
        counters = lab.links[0].counters()
    assert 20 <= len(arrived) <= 24
    assert arrived[:20] == list(range(20)), "the tail is dropped, not the head"
    assert counters.dropped == 100 - len(arrived)


def test_what_a_cut_link_is_given_vanishes() -> None:
    with Lab([Link(10, delay_ms=30)] * 2) as lab, datagrams(lab) as (left, right), datagrams(lab, 1) as (second, end):
        burst(left, 5)  # still under way when the link is cut
        lab.links[0].down()
        burst(left, 5, first=5)
        burst(right, 3)
        burst(second, 2)
        assert numbers(right) == []
        assert numbers(left) == []
        assert numbers(end) == [0, 1], "the other link is as it was"
        assert (lab.links[0].counters().cut, lab.links[0].counters(TO_LEFT).cut) == (10, 3)
        lab.links[0].up()
        burst(left, 2, first=10)
        assert numbers(right) == [10, 11]


def transfer(lab: Lab, source: str, target: str, data: bytes) -> bytes:
    """Send over TCP from the left to the right; returns what has arrived."""
    arrived = bytearray()
    with lab.right.open_socket() as server, lab.left.open_socket() as sender:
        server.bind((target, PORT))
        server.listen()
        sender.settimeout(PATIENCE_S)
        if source:
            sender.bind((source, 0))
        sender.connect((target, PORT))
        with server.accept()[0] as receiver:
            receiver.settimeout(PATIENCE_S)

            def feed() -> None:
                sender.sendall(data)
                sender.shutdown(socket.SHUT_WR)

            feeder = threading.Thread(target=feed)
            feeder.start()
            while piece := receiver.recv(1 << 18):
                arrived += piece
            feeder.join()
    return bytes(arrived)


def test_a_stream_arrives_whole_cut_into_packets_each_with_its_own_fate() -> None:
    data, loss = os.urandom(8 << 20), 0.01
    with Lab([Link(200, delay_ms=1, loss=loss, back=Link(200, delay_ms=1))], congestion="cubic") as lab:
        assert transfer(lab, "", lab.links[0].right, data) == data
        there = lab.links[0].counters()
    packets = there.packets + there.lost
    assert there.bytes / there.packets <= 1500
    assert packets >= len(data) / 1448
    assert abs(there.lost - packets * loss) < 3 * math.sqrt(packets * loss)


def test_the_left_address_decides_about_the_link() -> None:
    with Lab([Link(), Link(), Link()]) as lab:
        for source, target, used in (("", 2, 2), (lab.links[1].left, 0, 1), (lab.links[0].left, 2, 0)):
            before = [[link.counters(way).bytes for way in (TO_RIGHT, TO_LEFT)] for link in lab.links]
            assert transfer(lab, source, lab.links[target].right, bytes(2_000_000)) == bytes(2_000_000)
            for number, link in enumerate(lab.links):
                grown = [link.counters(way).bytes - before[number][way] for way in (TO_RIGHT, TO_LEFT)]
                if number == used:
                    assert min(grown) > 400 and grown[0] > 2_000_000
                else:  # the last words of the connection before may still come
                    assert max(grown) < 400


def test_the_algorithm_is_the_one_asked_for() -> None:
    for name in ("reno", "cubic"):
        with Lab([Link()], congestion=name) as lab, lab.right.open_socket() as server, lab.left.open_socket() as sender:
            server.bind((lab.links[0].right, PORT))
            server.listen()
            sender.connect((lab.links[0].right, PORT))
            with server.accept()[0] as accepted:
                for end in (sender, accepted):
                    found = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                    assert found.rstrip(b"\0").decode() == name


def test_an_unknown_algorithm_is_told() -> None:
    with pytest.raises(LabError, match=r"left: sh: .*congestion"), Lab([Link()], congestion="nosuch"):
        pass


# Nothing stays ----------------------------------------------------------------------------------------------


def inhabitants(inodes: set[int]) -> list[str]:
    """The processes that live in one of these namespaces, or hold it open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            held = {process / "ns/net", *(process / "fd").iterdir()}
            if any(path.stat().st_ino in inodes and "net:" in os.readlink(path) for path in held):
                found.append((process / "comm").read_text().strip())
    return found


def settled(inodes: set[int]) -> list[str]:
    """Who still lives there after a while; comes back as soon as nobody does."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := inhabitants(inodes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def test_the_end_of_the_block_ends_all_that_runs_on_the_hosts() -> None:
    with Lab([Link()]) as lab:
        inodes = {os.stat(host.space).st_ino for host in (lab.left, lab.right)}
        nested = lab.left.popen(["sh", "-c", "trap '' TERM; sleep 1000 & echo; wait"], stdout=subprocess.PIPE)
        lab.right.popen(["setsid", "sleep", "1000"])
        assert nested.stdout is not None and nested.stdout.readline() == b"\n"
        assert sorted(name for name in inhabitants(inodes) if name != "python") != []
    assert settled(inodes) == []


def test_kill_9_leaves_nothing() -> None:
    script = """
import os, subprocess
from tests.netlab import Lab, Link
with Lab([Link()]) as lab:
    sleeper = lab.left.popen(["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE)
    sleeper.stdout.readline()
    print(*(os.stat(host.space).st_ino for host in (lab.left, lab.right)), flush=True)
    sleeper.wait()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        inodes = set(map(int, maker.stdout.readline().split()))
        assert len(inodes) == 2
        assert {"sleep", "sh"} <= set(inhabitants(inodes))
        maker.send_signal(signal.SIGKILL)
    assert settled(inodes) == []


def test_a_broken_shuttle_is_told() -> None:
    with Lab([Link()]) as lab:
        lab._shuttle.kill()
        with pytest.raises(LabError, match="shuttle"):
            lab.links[0].down()


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() == ""
    for tool, name in (("ip", "ip(8)"), ("cc", "a C compiler (cc)")):
        with monkeypatch.context() as changed:
            changed.setattr("shutil.which", lambda one, tool=tool: None if one == tool else f"/bin/{one}")
            assert missing() == name
    monkeypatch.setattr(build, "TUN", "/nosuch")
    assert missing() == "/nosuch"


def test_without_privileges_root_is_missing() -> None:
    held = "Name:\tx\nCapEff:\t{:016x}\nSeccomp:\t0\n"
    assert build.may_make_networks(held.format((1 << 41) - 1))
    assert not build.may_make_networks(held.format(0))
    assert not build.may_make_networks(held.format(1 << build.CAP_NET_ADMIN)), "a container's root"
