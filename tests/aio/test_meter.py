"""How fast it goes, and when something moved last."""

from viamillipede.aio.meter import Meter
from viamillipede.config import MS_US, S_US


def meter_at(start_us: int) -> Meter:
    """One that was made at this time."""
    meter = Meter()
    meter._since_us = start_us
    return meter


def test_nothing_is_known_at_first() -> None:
    meter = Meter()
    assert (meter.rate, meter.progress_us) == (0, 0)


def test_the_rate_is_that_of_the_last_second() -> None:
    meter, rates = meter_at(7 * S_US), []
    for tick in range(1, 41):
        count = 1000 * tick if tick <= 20 else 20_000
        meter.sample(count, 7 * S_US + tick * 100 * MS_US)
        rates.append(meter.rate)
    assert rates[:9] == [0] * 9 and set(rates[9:29]) == {10_000} and set(rates[29:]) == {0}


def test_a_late_sample_counts_the_time_that_passed() -> None:
    meter = meter_at(0)
    meter.sample(10_000, 4 * S_US)
    assert meter.rate == 2500


def test_progress_is_when_the_count_was_last_seen_to_grow() -> None:
    meter, seen = meter_at(0), []
    for now, count in [(10, 0), (20, 5), (30, 5), (40, 6), (50, 6)]:
        meter.sample(count, now)
        seen.append(meter.progress_us)
    assert seen == [0, 20, 20, 40, 40]
