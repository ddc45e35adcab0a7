"""Which of several links was waited for: both sides name it, each by the addresses that it knows."""

import time

import pytest

from tests.e2e.verdict import Verdict, parsed
from tests.net.road import MB, PORT, Road
from tests.netlab import Link, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")]

LINK = Link(rate_mbit=100, delay_ms=2)
NARROW = Link(rate_mbit=10, delay_ms=2)


def verdicts(road: Road) -> tuple[Verdict, Verdict]:
    """Of tx and rx, at the end."""
    road.finish()
    return parsed(road.tx.said), parsed(road.rx.said)


def named(road: Road, *links: int) -> tuple[str, str]:
    """How tx and rx call these links."""
    theirs = sorted(f"{road.links[link].right}:{PORT}" for link in links)
    return " and ".join(theirs), " and ".join(sorted(road.links[link].left for link in links))


def share(verdict: Verdict, what: str) -> float:
    """Of the time in which neither side lacked a core, which others may hold."""
    shares = {name: part for name, part in verdict.shares.items() if not name.startswith("a core of ")}
    return shares.get(what, 0.0) / max(0.01, sum(shares.values()))


def is_named(verdict: Verdict, name: str, with_others: bool = False) -> bool:
    """Whether it says so, if it comes to that: not where others hold the cores."""
    if verdict.worst != "the network":
        return verdict.worst.startswith("a core of ")
    return name in verdict.path if with_others else name == verdict.path


def test_two_links_that_are_full() -> None:
    with Road([NARROW, NARROW], "threads", 4, source_mbit=100) as road:
        road.wait_delivered(4 * MB)
        for verdict, name in zip(verdicts(road), named(road, 0, 1), strict=True):
            assert share(verdict, "the network") >= 0.6 and is_named(verdict, name), verdict


def test_two_links_that_could_take_more() -> None:
    with Road([NARROW, LINK], "threads", 4, source_mbit=20) as road:
        road.wait_delivered(5 * MB)
        for verdict in verdicts(road):
            assert share(verdict, "the source") >= 0.6, verdict


def test_a_far_link_and_a_small_window() -> None:
    """The near one has nothing to do: all of the window is on its way over the far one."""
    with Road([Link(100, 50), LINK], "threads", 2, "window", "128k", source_mbit=100) as road:
        road.wait_delivered(2 * MB)
        ours, theirs = verdicts(road)
        assert share(ours, "the network") >= 0.6 and is_named(ours, named(road, 0)[0]), ours
        assert share(theirs, "the network") >= 0.6, theirs


@pytest.mark.parametrize("link", [0, 1])
def test_one_of_two_links_is_gone(link: int) -> None:
    """The other one is what everything waits for then."""
    with Road([NARROW, NARROW], "threads", 4, source_mbit=100) as road:
        road.wait_delivered(MB // 2)
        road.links[link].down()
        road.wait_delivered(4 * MB)
        ours, _ = verdicts(road)
        assert share(ours, "the network") >= 0.6 and is_named(ours, named(road, 1 - link)[0], True), ours


def test_the_only_link_is_gone_for_a_while() -> None:
    with Road([LINK], "threads", 2, "window", "256k", source_mbit=10) as road:
        road.wait_delivered(MB)
        road.links[0].down()
        time.sleep(2.5)
        road.links[0].up()
        road.wait_delivered(MB)
        for verdict, name in zip(verdicts(road), named(road, 0), strict=True):
            assert share(verdict, "the network") >= 0.4, verdict
            assert is_named(verdict, name), verdict
