"""Is the other side there? What tells a process that died from a network that is down.

    waiting for the first contact --leg up--> together --last leg lost--> alone --leg up--> together

Alone, the clock that runs depends on the evidence. A leg that the other host closed or reset, or a
port that refuses where it used to accept, says that the process is gone: `regroup` is left. Silence
says that the network is down: `outage` is left. Data that pauses is no evidence at all. A side that has
not heard more than a greeting may be the only one that knows of that leg: then the other one is still
at its first contact, which may take its time.
"""

from enum import Enum

from viamillipede.config import UNHEARD_US


class Absence(Enum):
    """Why it makes no sense to go on waiting."""

    NO_CONTACT = "no first contact"
    DEAD = "the other process is gone"
    OUTAGE = "the network was down for too long"


class Presence:
    """Counts the legs that are up and keeps the deadline that applies while there are none."""

    def __init__(self, wait_us: int | None, regroup_us: int, outage_us: int, now_us: int) -> None:
        self._wait_us, self._regroup_us, self._outage_us = wait_us, regroup_us, outage_us
        self.heard = True  # the other side has said more than its greeting: it knows that it has a leg
        self.legs_up = 0
        self.contacted = False
        self.alone_since_us: int | None = now_us
        self.gone = False  # alone, and the evidence says that the process is gone
        self._interrupted_us: int | None = None  # since when we had been alone when a leg came that was of no use yet

    def on_leg_up(self) -> None:
        """Previous states: any. Next state: together."""
        self.legs_up += 1
        if self.contacted and self.alone_since_us is not None:
            self._interrupted_us = self.alone_since_us
        self.contacted = True
        self.alone_since_us = None
        self.gone = False

    def on_useful(self) -> None:
        """A leg has brought something, or has lived for a while: we were alone no longer."""
        self._interrupted_us = None

    def on_leg_lost(self, closed_by_peer: bool, now_us: int) -> None:
        """Previous state: together. Next: together, or alone if that was the last leg."""
        self.legs_up -= 1
        assert self.legs_up >= 0
        if not self.legs_up:
            self.alone_since_us = now_us if self._interrupted_us is None else self._interrupted_us
            self._interrupted_us = None
            self.gone = closed_by_peer

    def on_refused(self) -> None:
        """An address that had accepted a leg refuses one. Alone, that is evidence."""
        if self.alone_since_us is not None and self.contacted:
            self.gone = True

    def on_slept(self, slept_us: int) -> None:
        """We did not run for so long (SIGSTOP, a suspended machine): that says nothing about the other side."""
        if self.alone_since_us is not None:
            self.alone_since_us += slept_us
        if self._interrupted_us is not None:
            self._interrupted_us += slept_us

    def deadline_us(self) -> int | None:
        """When the wait ends; None: never."""
        if self.alone_since_us is None:
            return None
        if not self.contacted:
            return None if self._wait_us is None else self.alone_since_us + self._wait_us
        regroup_us = self._regroup_us if self.heard else max(self._regroup_us, UNHEARD_US)
        return self.alone_since_us + (regroup_us if self.gone else self._outage_us)

    def absence(self, now_us: int) -> Absence | None:
        """Why to give up, once the deadline has passed."""
        deadline_us = self.deadline_us()
        if deadline_us is None or now_us < deadline_us:
            return None
        if not self.contacted:
            return Absence.NO_CONTACT
        return Absence.DEAD if self.gone else Absence.OUTAGE
