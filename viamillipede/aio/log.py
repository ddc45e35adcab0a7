"""Lines on standard error, by level (viamillipede.1, verbose). Standard output carries data only."""

import os

VERBOSE_STEPS = (0, 1, 2, 3, 5, 10, 20)  # SIGUSR2 goes through them in a circle
WARNING, EVENT, LEG, RESENT, FRAME, OPERATION = 1, 2, 3, 5, 10, 20


class Log:
    """Says what is at or below the level `verbose`."""

    def __init__(self, role: str, verbose: int) -> None:
        self.verbose = verbose
        self._prefix = f"viamillipede {role}: "

    def say(self, level: int, text: str) -> None:
        """One line, or several, each with the name of who speaks."""
        if self.verbose >= level:
            self.write("".join(f"{self._prefix}{line}\n" for line in text.splitlines()))

    def write(self, text: str) -> None:
        """Text as it is. A stream is worth more than the news about it: without a stderr it goes on."""
        try:
            os.write(2, text.encode(errors="backslashreplace"))
        except OSError:
            self.verbose = 0

    def step(self) -> None:
        """The next level of VERBOSE_STEPS, or back to the first."""
        higher = [level for level in VERBOSE_STEPS if level > self.verbose]
        self.verbose = higher[0] if higher else VERBOSE_STEPS[0]
        self.write(f"{self._prefix}verbose {self.verbose}\n")
