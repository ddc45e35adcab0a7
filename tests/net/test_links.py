"""Preference, spill-over, and links that go and come back: the stream is whole, and every link that works is used."""

import time

import pytest

from tests.net.road import MB, Road
from tests.netlab import Link, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")]

LINK = Link(rate_mbit=100, delay_ms=5)


@pytest.mark.parametrize("words", [(), ("threads", 4)], ids=["auto", "4 legs"])
def test_a_source_that_the_first_link_can_carry_stays_on_it(words: tuple[object, ...]) -> None:
    with Road([LINK, LINK], *words) as road:
        road.wait_delivered(2 * MB)  # what is spilled while the first link's connections are new is no fault
        before = road.carried(0), road.carried(1)
        road.wait_delivered(10 * MB)
        road.finish()
        first, second = (road.carried(link) - before[link] for link in (0, 1))
        assert first >= 0.95 * (first + second)


def test_a_throttled_link_spills_over_and_is_preferred_again_when_it_recovers() -> None:
    with Road([LINK, LINK], "threads", 4) as road:
        road.wait_carried(0, 2 * MB)
        road.links[0].set(rate_mbit=10)
        before = road.carried(1)
        begin = time.monotonic()
        road.wait_delivered(10 * MB)
        # The source gives 5 MB a second; over the throttled link alone this would take more than 8 seconds.
        assert time.monotonic() - begin < 6
        assert road.carried(1) - before > 5 * MB
        road.links[0].set(rate_mbit=100)
        road.wait_carried(0, 6 * MB)
        road.finish()


def test_one_of_two_links_is_black_holed_and_used_again_when_it_is_back() -> None:
    with Road([LINK, LINK], "threads", 4) as road:
        road.wait_carried(0, 2 * MB)
        road.links[0].down()
        begin = time.monotonic()
        road.wait_delivered(8 * MB)  # more than all windows hold: it goes on over the other link
        assert time.monotonic() - begin < 6
        road.links[0].up()
        begin = time.monotonic()
        road.wait_carried(0, 2 * MB)
        assert time.monotonic() - begin < 8
        road.finish()


def test_the_only_link_is_gone_for_a_while() -> None:
    with Road([LINK], "threads", 4) as road:
        road.wait_delivered(2 * MB)
        road.links[0].down()
        time.sleep(3)
        road.links[0].up()
        begin = time.monotonic()
        road.wait_delivered(4 * MB)
        # TCP alone would try again up to three seconds later; new connections are faster.
        assert time.monotonic() - begin < 4
        road.finish()


def test_all_links_are_gone_for_a_while() -> None:
    with Road([LINK, LINK], "threads", 4) as road:
        road.wait_delivered(2 * MB)
        for link in road.links:
            link.down()
        time.sleep(3)
        assert not road.has_ended()
        for link in road.links:
            link.up()
        road.wait_delivered(4 * MB)
        road.finish()
