"""A transfer over emulated links: rx on the right host, tx on the left, a source of a known rate, a reader that checks.

with Road([Link(100, 5), Link(100, 5)], "threads", 4) as road:
    road.wait_delivered(4 * MB)
    road.links[0].down()
    ...
    road.finish()
"""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from tests.e2e.helpers import KIB, Side, eventually, read_some, some_bytes
from tests.netlab import TO_RIGHT, Lab, Link, LiveLink

PORT = 8834  # nobody else is on these hosts
MB = 1_000_000
PATIENCE_S = 15.0  # for whatever a test waits for; each takes a second or two
PIECE_BYTES = 40 * KIB
BLOCK = some_bytes(1 << 20)  # the stream repeats it; its length is no multiple of a piece


class Road:
    """One tx, one rx, and the links; the stream flows until `finish`, at `source_mbit`, as far as it is taken."""

    def __init__(self, links: Sequence[Link], *words: object, source_mbit: float = 40.0) -> None:
        self.lab = Lab(links, congestion="cubic")
        self.words, self.rate = words, source_mbit * 125_000
        self.fed = self.delivered = 0
        self.wrong_at: int | None = None
        self._enough = threading.Event()
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lab)
            # What it runs in, a list of words that the program's own follow.
            left, right = self.lab.left.command([]), self.lab.right.command([])
            self.rx = Side("rx", ["rx", PORT], subprocess.DEVNULL, subprocess.PIPE, None, right)
            stack.callback(self.rx.release)
            self.rx.hear("listening on port")
            addresses = [word for link in self.lab.links for word in ("tx", link.right, PORT)]
            self.tx = Side("tx", [*addresses, *self.words], subprocess.PIPE, subprocess.DEVNULL, None, left)
            stack.callback(self.tx.release)
            self._reader = threading.Thread(target=self._read)
            self._reader.start()
            self.tx.feed(self._pieces())
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._enough.set()
        if kind is not None:
            for side in (self.rx, self.tx):
                side.process.kill()
                print(f"--- {side.role}:\n{side.said}")
        self._reader.join(PATIENCE_S)
        self._exit.close()

    @property
    def links(self) -> list[LiveLink]:
        """Those of the laboratory."""
        return self.lab.links

    def carried(self, link: int) -> int:
        """The bytes that a link has brought to rx so far."""
        return self.lab.links[link].counters(TO_RIGHT).bytes

    def wait_delivered(self, more: int) -> None:
        """Until so many more bytes have come out of rx."""
        goal = self.delivered + more
        eventually(lambda: self.delivered >= goal or self.has_ended(), f"{more} bytes more delivered", PATIENCE_S)
        assert self.delivered >= goal, "a side has ended"

    def wait_carried(self, link: int, more: int) -> None:
        """Until a link has brought so many more bytes."""
        goal = self.carried(link) + more
        eventually(
            lambda: self.carried(link) >= goal or self.has_ended(), f"{more} bytes more over link {link}", PATIENCE_S
        )
        assert self.carried(link) >= goal, "a side has ended"

    def has_ended(self) -> bool:
        """Whether tx or rx has exited."""
        return any(side.process.poll() is not None for side in (self.rx, self.tx))

    def finish(self) -> None:
        """End the input; both sides must be content, and the output must be what was put in."""
        self._enough.set()
        self.tx.ends(0, PATIENCE_S)
        self.rx.ends(0, PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.wrong_at is None, f"not what was put in, from byte {self.wrong_at}"
        assert self.delivered == self.fed

    def _pieces(self) -> Iterator[bytes]:
        """A source with a rate of its own: late pieces are made up for, none comes early."""
        begin, pieces = time.monotonic(), 0
        stream = BLOCK + BLOCK[:PIECE_BYTES]
        while not self._enough.is_set():
            at = self.fed % len(BLOCK)
            self.fed += PIECE_BYTES
            pieces += 1
            yield stream[at : at + PIECE_BYTES]
            self._enough.wait(max(0.0, begin + pieces * PIECE_BYTES / self.rate - time.monotonic()))

    def _read(self) -> None:
        while piece := read_some(self.rx.output):
            expected = (BLOCK * (len(piece) // len(BLOCK) + 2))[self.delivered % len(BLOCK) :][: len(piece)]
            if piece != expected and self.wrong_at is None:
                self.wrong_at = self.delivered
            self.delivered += len(piece)
