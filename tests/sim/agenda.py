"""Virtual time."""

import heapq
from collections.abc import Callable
from itertools import count

from viamillipede.config import S_US

BEGIN_US = S_US


class Agenda:
    """What is to be done, and when. Nothing else passes the time."""

    def __init__(self) -> None:
        self.now_us = BEGIN_US
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, delay_us: int, step: Callable[[], None]) -> None:
        """Do `step` in `delay_us`."""
        heapq.heappush(self._agenda, (self.now_us + delay_us, next(self._order), step))

    def step(self) -> None:
        """To the next event."""
        self.now_us, _, step = heapq.heappop(self._agenda)
        step()
