"""From made-up figures to what is recommended."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from viamillipede.config import MIB, MS_US
from viamillipede.doctor.advice import Advice, Measured, Step, recommend, verdict

MBIT = 125_000  # bytes per second
LADDER = (1, 2, 4, 8, 16, 32, 64)


def step(legs: int, mbit: float, **changes: Any) -> Step:
    """A step that the network decided, without losses or queues."""
    made = Step(legs, int(mbit * MBIT), 0.0, 100 * MS_US, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0)
    return dataclasses.replace(made, **changes)


def road(steps: Sequence[Step], **changes: Any) -> Measured:
    """A road of 100 ms."""
    made = Measured(
        address="host:8834",
        connects_us=(100 * MS_US, 101 * MS_US),
        mss=1448,
        path_mtu=1500,
        interface="eth0",
        interface_mtu=1500,
        interface_mbit=10_000,
        congestion="cubic",
        bbr=True,
        window_bytes=64 * MIB,
        steps=tuple(steps),
    )
    return dataclasses.replace(made, **changes)


def rates(*mbit: float, **changes: Any) -> list[Step]:
    """One step for each rate, with 1, 2, 4 ... legs."""
    return [step(legs, rate, **changes) for legs, rate in zip(LADDER, mbit, strict=False)]


def only(advice: Sequence[Advice]) -> str:
    """The one piece of advice there is."""
    (one,) = advice
    return one.text


def test_without_figures_there_is_no_advice() -> None:
    assert recommend(road([])) == []


@pytest.mark.parametrize(
    ("mbit", "said"),
    [
        ((94, 95, 95, 95, 95), "threads auto, the default, or threads 1: 1 leg brings 94 Mbit/s, more bring hardly"),
        ((20, 40, 80, 95, 96), "threads auto, the default, or threads 8: 8 legs bring 95 Mbit/s, 4 only 80 Mbit/s"),
        ((2, 4, 8, 16, 33), "threads auto, the default, or threads 32 or more: 16 legs bring 33 Mbit/s"),
        ((2, 4, 8, 16, 32, 64, 128), "threads 128 or more: 64 legs bring 128 Mbit/s, 32 only 64 Mbit/s; auto, the"),
        (
            (2, 4, 8, 16, 18),
            "threads auto, the default, or threads 16: 16 legs bring 18 Mbit/s, 8 only 16 Mbit/s, and ",
        ),
        ((0, 0, 0), "threads auto, the default, or threads 1: 1 leg brings 0 bit/s"),
        ((50,), "threads auto, the default, or threads 1: 1 leg brings 50 Mbit/s"),
    ],
)
def test_the_fewest_legs_that_are_nearly_as_fast_as_the_fastest(mbit: tuple[float, ...], said: str) -> None:
    assert only(recommend(road(rates(*mbit)))).startswith(said)


def test_where_a_core_decides_figures_that_vary_are_not_followed() -> None:
    steps = rates(8000, 9000, 10_000)
    assert "threads 2" in recommend(road(steps, interface_mbit=0))[0].text
    end, legs = recommend(road(rates(8000, 9000, 10_000, core_share=0.7), interface_mbit=0))[:2]
    assert end.text.startswith("10 Gbit/s is what a core here can do: a faster processor here would help")
    assert "threads 1" in legs.text


@pytest.mark.parametrize(
    ("shares", "end"),
    [
        ({"core_share": 0.6}, "a core here"),
        ({"rx_core_share": 0.5, "output_share": 0.3}, "a core there"),
        ({"output_share": 0.4}, "rx's output"),
    ],
)
def test_an_end_that_decides_is_told(shares: dict[str, float], end: str) -> None:
    steps = rates(40, 40, 40, window_share=1.0, send_buffer_share=1.0, **shares)
    advice = recommend(road(steps))
    assert advice[0].text.startswith(f"40 Mbit/s is what {end} can do: ") and len(advice) == 2
    assert verdict(steps[0], road(steps)) == end
    assert verdict(step(1, 94, core_share=0.2), road([])) == "the network"


def test_losses_without_a_queue_want_bbr() -> None:
    steps = rates(94, 95, lost_share=0.01)
    _, advice = recommend(road(steps))
    assert advice.text.startswith("congestion bbr on tx: up to 1 % of the packets were sent again, and cubic slows")
    assert not advice.commands
    _, advice = recommend(road(steps, bbr=False))
    assert advice.commands == ("modprobe tcp_bbr",)
    only(recommend(road(steps, congestion="bbr")))
    only(recommend(road(rates(94, 95, lost_share=0.0005))))
    only(recommend(road(rates(94, 95, lost_share=None))))


def test_losses_of_a_queue_that_overflows_do_not_want_bbr() -> None:
    only(recommend(road(rates(94, 95, lost_share=0.01, rtt_us=150 * MS_US))))


def test_a_window_that_is_too_small_for_rate_and_round_trip() -> None:
    # 8 Gbit/s times 100 ms are 95 MiB; twice that, rounded up.
    advice = recommend(road(rates(8000, 8100)))
    assert advice[1].text.startswith("window 256M on both sides: 8.1 Gbit/s times 100.0 ms, twice")
    only(recommend(road(rates(2000, 2050))))  # 24 MiB


def test_a_window_that_was_full_is_doubled() -> None:
    full = step(1, 1300, window_share=0.9, rtt_us=100 * MS_US)  # 15.5 of 16 MiB under way
    advice = recommend(road([full], window_bytes=16 * MIB))
    assert advice[1].text.startswith("window 32M on both sides: all of it was on its way 90 % of the time")
    assert verdict(full, road([full], window_bytes=16 * MIB)) == "the window"


@pytest.mark.parametrize(
    ("share", "said", "command"),
    [
        ("send_buffer_share", "send buffers", "sysctl -w net.ipv4.tcp_wmem='4096 16384 33554432'"),
        ("receive_buffer_share", "receive buffers", "sysctl -w net.ipv4.tcp_rmem='4096 131072 33554432'"),
    ],
)
def test_small_buffers_are_told_with_the_command_that_enlarges_them(share: str, said: str, command: str) -> None:
    steps = rates(20, 40, 80, **{share: 0.9})
    advice = recommend(road(steps))
    assert said in advice[1].text and advice[1].commands == (command,)
    assert verdict(steps[0], road(steps)) == said
    queued = rates(94, 95, rtt_us=130 * MS_US, **{share: 0.9})  # full because the road is
    assert verdict(queued[0], road(queued)) == "the network"
    only(recommend(road(queued)))


def test_small_packets_on_the_way_are_told() -> None:
    assert recommend(road(rates(94), path_mtu=1400))[1].text.startswith("something on the way takes packets of 1400")
    only(recommend(road(rates(94), path_mtu=0)))
    only(recommend(road(rates(94), path_mtu=65535, interface="lo", interface_mtu=65536)))


def test_a_link_that_is_full_is_told() -> None:
    assert recommend(road(rates(940), interface_mbit=1000))[1].text == "eth0 is full: 940 Mbit/s of its 1000 Mbit/s"
    only(recommend(road(rates(500), interface_mbit=1000)))
