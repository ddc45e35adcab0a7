"""rx dials and tx listens: the same promises, with the roads the other way round."""

import re
import time

import pytest

from tests.e2e.helpers import KIB, LOOPBACK, MIB, Stage, read_all, read_exactly, some_bytes, write_while_taken
from tests.e2e.proxy import DOWN, Fault
from tests.e2e.test_contact import NOBODY, reserve
from tests.e2e.turned import dialling, listening, whole

UP = r"leg \d+ to \S+: up"


# ---- a stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 3 * MIB + 1])
def test_a_stream(stage: Stage, size: int) -> None:
    tx = listening(stage)
    whole(dialling(stage, tx), tx, some_bytes(size))
    assert "refused" not in tx.said


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("threads", 8, "checksum")], ids=["default", "checksum"])
def test_100_mb(stage: Stage, words: tuple[object, ...]) -> None:
    tx = listening(stage, *words)
    whole(dialling(stage, tx), tx, some_bytes(25_000_000) * 4)


@pytest.mark.parametrize("asks", ["tx", "rx"])
def test_checksum_wherever_it_was_asked_for(stage: Stage, asks: str) -> None:
    tx = listening(stage, *(["checksum"] if asks == "tx" else []))
    rx = dialling(stage, tx, *(["checksum"] if asks == "rx" else []))
    whole(rx, tx, some_bytes(3 * MIB))
    assert rx.closing("corrupted") == 0


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_tx_says_how_many_legs_and_rx_dials_them(stage: Stage, threads: int) -> None:
    tx = listening(stage, "threads", threads, "verbose", 3)
    rx = dialling(stage, tx)
    tx.hear(UP, times=threads)
    whole(rx, tx, some_bytes(5 * MIB))
    assert tx.closing("leg") == rx.closing("leg") == threads
    assert tx.closing("restart") == rx.closing("restart") == 0


def test_two_addresses_share_the_legs_and_both_carry(stage: Stage) -> None:
    tx = listening(stage, "threads", 5, "verbose", 3)
    one, other = stage.proxy(tx), stage.proxy(tx)
    rx = dialling(stage, one, other)
    tx.hear(UP, times=5)
    assert (one.accepted, other.accepted) == (3, 2)
    whole(rx, tx, some_bytes(20 * MIB))


def test_the_first_address_is_preferred(stage: Stage) -> None:
    tx = listening(stage, "threads", 2, "verbose", 3)
    one, other = stage.proxy(tx), stage.proxy(tx)
    rx = dialling(stage, one, other)
    tx.hear(UP, times=2)
    for _ in range(50):  # a stream that one leg can carry
        tx.write(b"x" * KIB)
        read_exactly(rx.output, KIB)
    passed = [sum(link.passed[DOWN] for link in proxy.links) for proxy in (one, other)]
    assert passed[0] >= 50 * KIB and passed[1] < 5 * KIB
    whole(rx, tx, b"")


def test_a_dead_first_address_costs_nothing_but_itself(stage: Stage) -> None:
    tx = listening(stage, "threads", 6, "verbose", 3, "bind", LOOPBACK)
    rx = dialling(stage, (NOBODY, tx.port), tx, "verbose", 3)
    tx.hear(UP, times=5)  # legs 0, 2 and 4 are at home on the dead one, and only the first stays there
    whole(rx, tx, some_bytes(5 * MIB))
    assert f"{NOBODY}:{tx.port}: Connection refused" in rx.said


def test_a_name_that_means_two_families(stage: Stage) -> None:
    tx = listening(stage)
    whole(dialling(stage, ("localhost", tx.port)), tx, b"by name")


def test_via_binds_the_path(stage: Stage) -> None:
    tx = listening(stage, "verbose", 3)
    rx = dialling(stage, (LOOPBACK, tx.port), "via", "127.0.0.7")
    tx.hear(r"leg 0 to 127\.0\.0\.7:\d+: up")
    whole(rx, tx, b"from there")


# ---- who starts first --------------------------------------------------------------------------------------


def test_rx_starts_before_tx(stage: Stage) -> None:
    port = reserve(stage)
    rx = dialling(stage, (LOOPBACK, port), "verbose", 3)
    rx.hear("Connection refused", times=3)
    whole(rx, listening(stage, port=port, stdin=-1), b"patience")
    assert "waiting for a transmitter" not in rx.said or "refused" in rx.said


def test_tx_waits_for_a_while_and_says_that_nobody_called(stage: Stage) -> None:
    tx = listening(stage, "wait", "300ms")
    assert "no contact: no receiver called" in tx.ends(3)


def test_rx_waits_as_long_as_it_is_told_to_and_says_why(stage: Stage) -> None:
    rx = dialling(stage, (LOOPBACK, reserve(stage)), "wait", "300ms")
    assert re.search(r"no transmitter came within 0\.3 s; \S+: Connection refused", rx.ends(9))


def test_more_paths_than_a_call_can_name(stage: Stage) -> None:
    rx = dialling(stage, *[(LOOPBACK, 1 + i) for i in range(65)])
    assert "65 paths are too many for an rx that dials, at most 64" in rx.ends(2)


# ---- legs that are lost ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reset", "close"])
def test_legs_that_are_cut_again_and_again(stage: Stage, kind: str) -> None:
    tx = listening(stage, "threads", 4, "verbose", 3)
    proxy = stage.proxy(tx)
    proxy.plan = lambda number: Fault(kind, DOWN, 900 * KIB + 7777 * number) if number < 20 else None
    data = some_bytes(30 * MIB)
    rx = dialling(stage, proxy, "verbose", 3)
    whole(rx, tx, data)
    assert proxy.faults >= 10
    assert tx.closing("restart") >= 5 and rx.closing("restart") >= 5


def test_every_leg_is_lost_at_once_and_the_stream_goes_on(stage: Stage) -> None:
    tx = listening(stage, "threads", 4)
    proxy = stage.proxy(tx)
    rx = dialling(stage, proxy)
    tx.feed([data := some_bytes(40 * MIB)])
    arrived = read_exactly(rx.output, 10 * MIB)
    for _ in range(3):
        proxy.strike("reset")
        arrived += read_exactly(rx.output, 5 * MIB)
    assert arrived + read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_network_that_is_gone_for_a_while(stage: Stage, state: str) -> None:
    """Without a word: what is on its way is lost, and so are new connections."""
    tx = listening(stage, "threads", 2, "verbose", 2)
    proxy = stage.proxy(tx)
    rx = dialling(stage, proxy, "verbose", 2)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    data = some_bytes(40 * MIB)
    if state == "busy":
        tx.feed([data])
        before = read_exactly(rx.output, 10 * MIB)
    proxy.strike("deaf")
    proxy.cut()
    tx.hear("silent")
    time.sleep(2)
    proxy.mend()
    mended = time.monotonic()
    if state == "idle":
        tx.feed([data])
        before = read_exactly(rx.output, 10 * MIB)
    after = read_exactly(rx.output, MIB)
    assert time.monotonic() - mended < 5
    assert before + after + read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)


@pytest.mark.slow
def test_a_leg_that_dies_while_the_output_is_blocked_is_dialled_anew(stage: Stage) -> None:
    """rx does not read then, so that it goes by what the other host does not acknowledge."""
    tx = listening(stage, "window", "4M", "threads", 1, "verbose", 2)
    proxy = stage.proxy(tx)
    rx = dialling(stage, proxy, "window", "4M", "verbose", 3)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    count = write_while_taken(tx.input, quiet_s=0.5)
    proxy.strike("reset")
    rx.hear(r"leg 0 to \S+: up", times=2)
    tx.end_input()
    assert read_all(rx.output) == bytes(count)
    tx.ends(0)
    rx.ends(0)


@pytest.mark.parametrize("way", [0, 1])
def test_the_end_is_heard_although_the_last_leg_is_lost(stage: Stage, way: int) -> None:
    """DONE, or BYE, is what is lost with it."""
    tx = listening(stage, "threads", 1, "verbose", 3)
    proxy = stage.proxy(tx)
    rx = dialling(stage, proxy, "verbose", 3)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    proxy.call(lambda: setattr(proxy.links[0], "fault", Fault("reset", way, proxy.links[0].passed[way] + 20)))
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
