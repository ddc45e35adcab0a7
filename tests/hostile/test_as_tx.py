"""A tx that was let in, and lies: all that can come of it is that its own stream fails."""

import itertools
import re
import signal
from random import Random

import pytest

from tests.e2e.commands import Marks, sh
from tests.e2e.helpers import MIB, Stage, some_bytes
from tests.hostile.conftest import Lock
from tests.hostile.lies_of_tx import LIES, WINDOW, Spoilt, tell
from tests.hostile.watch import Watch
from viamillipede.errors import Exit

GOOD_BYTES = 24 * MIB
SEED = 8834
ENDINGS = {Exit.COMPLETE, Exit.PEER_LOST, Exit.INTEGRITY, Exit.REMOTE_FAILED}


@pytest.mark.slow
def test_lies(stage: Stage, marks: Marks, lock: Lock) -> None:
    """Every lie has a stream of its own, all with one rx, and an honest stream goes on beside them."""
    sink = sh('cd "$1"; exec cat >data.$VIAMILLIPEDE_NAME', marks.folder)
    words = ("verbose", 2, "window", "4M", "regroup", "1s", "outage", "1s", *lock.words)
    rx = stage.rx("keep", "streams", len(LIES) + 1, "bind", "127.0.0.1", *words, *sink)
    good = some_bytes(GOOD_BYTES)
    tx = stage.tx(rx, "name", "good", "threads", 2, "limit", "6M", *lock.words)
    tx.feed([good])
    rx.hear("stream good from ")
    streams, wrong = [], []
    with Watch(WINDOW, rx):
        for number, (name, lie) in enumerate(LIES.items()):
            print(f"{name}: seed {SEED + number}")
            stream = Spoilt(rx.port, lock.key, name, SEED + number)
            streams.append(stream)
            if said := tell(stream, lie):
                wrong.append(f"{name}: {said}")
            if name.startswith("flood"):
                rx.signal(signal.SIGUSR1)  # what it was told is shown
            stream.close()
        for stream in streams:
            status = rx.hear(rf"stream {re.escape(stream.name)}: (?:complete|failed with status (\d+))")[1]
            if int(status or 0) not in ENDINGS:
                wrong.append(f"{stream.name}: status {status}")
            came = marks[f"data.{stream.name}"].read_bytes() if marks.has(f"data.{stream.name}") else b""
            if not stream.sent.startswith(came):
                wrong.append(f"{stream.name}: {came[:100]!r} came out, of {len(stream.sent)} bytes sent")
        tx.ends(0)
    assert marks["data.good"].read_bytes() == good
    assert not wrong, "\n".join(wrong)
    rx.signal(signal.SIGTERM)
    rx.ends(143)


def test_the_lies_are_the_same_each_time() -> None:
    assert Random(SEED).randbytes(16) == Spoilt(0, None, "x", SEED)._session
    assert all(re.fullmatch(r"[a-z0-9A-Z.]+", name) for name in LIES)
    assert len(LIES) == len(list(itertools.chain(LIES)))
