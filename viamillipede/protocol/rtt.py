"""How long a frame usually takes from its first byte sent to its acknowledgement: RFC 6298's estimator."""


class RttEstimator:
    """Smoothed time and its variation, in microseconds."""

    def __init__(self) -> None:
        self.smoothed_us = 0
        self.variation_us = 0
        self.samples = 0

    def __repr__(self) -> str:
        return f"<RttEstimator {self.smoothed_us} us +- {self.variation_us}>"

    def sample(self, rtt_us: int) -> None:
        """Take in one measurement (RFC 6298, 2.2 and 2.3: alpha 1/8, beta 1/4)."""
        rtt_us = max(rtt_us, 1)
        if not self.samples:
            self.smoothed_us, self.variation_us = rtt_us, rtt_us // 2
        else:
            self.variation_us += (abs(self.smoothed_us - rtt_us) - self.variation_us) // 4
            self.smoothed_us += (rtt_us - self.smoothed_us) // 8
        self.samples += 1

    def timeout_us(self) -> int:
        """Later than this is late: the smoothed time and four variations."""
        return self.smoothed_us + 4 * self.variation_us
