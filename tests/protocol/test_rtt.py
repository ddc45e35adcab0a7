"""The estimator follows RFC 6298 in whole microseconds."""

from hypothesis import given
from hypothesis import strategies as st

from viamillipede.protocol.rtt import RttEstimator


def test_before_the_first_sample_nothing_is_known() -> None:
    assert RttEstimator().timeout_us() == 0


def test_the_first_sample_is_believed() -> None:
    rtt = RttEstimator()
    rtt.sample(1000)
    assert (rtt.smoothed_us, rtt.variation_us, rtt.timeout_us(), rtt.samples) == (1000, 500, 3000, 1)
    assert repr(rtt) == "<RttEstimator 1000 us +- 500>"


def test_the_second_sample_moves_by_an_eighth_and_a_quarter() -> None:
    rtt = RttEstimator()
    rtt.sample(1000)
    rtt.sample(1800)
    assert (rtt.smoothed_us, rtt.variation_us) == (1100, 575)


def test_a_steady_time_is_learnt() -> None:
    rtt = RttEstimator()
    for rtt_us in [90_000] * 3 + [10_000] * 100:
        rtt.sample(rtt_us)
    assert 10_000 <= rtt.smoothed_us <= 10_010 and rtt.variation_us < 10


@given(st.lists(st.integers(-5, 1 << 40), min_size=1))
def test_estimates_stay_within_what_was_seen(samples: list[int]) -> None:
    rtt = RttEstimator()
    for sample in samples:
        rtt.sample(sample)
    seen = [max(1, sample) for sample in samples]
    assert min(seen) <= rtt.smoothed_us <= max(seen)
    assert 0 <= rtt.variation_us <= max(seen)
