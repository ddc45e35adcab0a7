"""Lines on standard error, by level (viamillipede.1, verbose). Standard output carries data only."""

import os
import select

VERBOSE_STEPS = (0, 1, 2, 3, 5, 10, 20)  # SIGUSR2 goes through them in a circle
WARNING, EVENT, LEG, RESENT, FRAME, OPERATION = 1, 2, 3, 5, 10, 20


class Log:
    """Says what is at or below the level `verbose`."""

    def __init__(self, role: str, verbose: int) -> None:
        self.verbose = verbose
        self._poll = select.poll()
        self._poll.register(2, select.POLLOUT)
        self._prefix = f"viamillipede {role}: "

    def say(self, level: int, text: str) -> None:
        """One line, or several, each with the name of who speaks."""
        if self.verbose >= level:
            self.write("".join(f"{self._prefix}{line}\n" for line in text.splitlines()))

    def write(self, text: str) -> None:
        """Text as it is, or as much of it as stderr takes at once.

        A stream is worth more than the news about it: it goes on without a stderr, and with one that nobody reads.
        """
        data = text.encode(errors="backslashreplace")
        try:
            while data and self._poll.poll(0):
                data = data[
                    os.write(2, data[: select.PIPE_BUF]) :
                ]  # a pipe that is writable takes so much without blocking
        except BlockingIOError:
            pass  # another one filled it first
        except OSError:
            self.verbose = 0

    def step(self) -> None:
        """The next level of VERBOSE_STEPS, or back to the first."""
        higher = [level for level in VERBOSE_STEPS if level > self.verbose]
        self.verbose = higher[0] if higher else VERBOSE_STEPS[0]
        self.write(f"{self._prefix}verbose {self.verbose}\n")
