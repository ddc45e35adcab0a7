"""Who has tried to come in with another key, and for how long that keeps others from the same host waiting.

Each host may fail ATTEMPTS_BURST times, and then once every ATTEMPT_US. Legs of a stream that runs are not counted
and not held up: they prove what only the two sides know. At most HOSTS_MAX hosts are remembered; of those that
come after, all together count as one.
"""

from viamillipede.config import S_US

ATTEMPTS_BURST = 10
ATTEMPT_US = 1 * S_US
HOSTS_MAX = 1024
OTHERS = ""  # all hosts that there is no room to remember


class Attempts:
    """Failures by host, as times: a host is clean again when its time has passed."""

    def __init__(self, burst: int = ATTEMPTS_BURST, attempt_us: int = ATTEMPT_US) -> None:
        self._burst_us, self._attempt_us = burst * attempt_us, attempt_us
        self._clean_us: dict[str, int] = {}  # when all failures of a host are forgotten

    def _name(self, host: str) -> str:
        return host if host in self._clean_us or len(self._clean_us) < HOSTS_MAX else OTHERS

    def allowed(self, host: str, now_us: int) -> bool:
        """Whether the host may try now."""
        return self._clean_us.get(self._name(host), 0) + self._attempt_us <= now_us + self._burst_us

    def on_failed(self, host: str, now_us: int) -> None:
        """It has tried, and failed."""
        if len(self._clean_us) >= HOSTS_MAX:
            self._clean_us = {name: clean for name, clean in self._clean_us.items() if clean > now_us}
        name = self._name(host)
        self._clean_us[name] = max(self._clean_us.get(name, 0), now_us) + self._attempt_us

    def on_success(self, host: str) -> None:
        """What `on_failed` was told of beforehand has not failed after all."""
        if (name := self._name(host)) in self._clean_us:
            self._clean_us[name] -= self._attempt_us
