"""An rx that lies: tx never says that all is well, and does not hang."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.helpers import Stage, some_bytes
from tests.hostile.conftest import Lock
from tests.hostile.lies_of_rx import LIES, STREAM_BYTES, WINDOW, Played
from tests.hostile.peer import port_of
from tests.hostile.watch import Watch
from viamillipede.errors import Exit

SEED = 8834
AT_A_TIME = 6
ENDS_WITHIN_S = 60


@pytest.mark.slow
def test_lies(stage: Stage, lock: Lock) -> None:
    """Every lie has a tx of its own."""
    data = some_bytes(STREAM_BYTES)

    def play(number: int, name: str) -> str:
        played = Played(name, lock.key, SEED + number)
        wait = "2s" if Exit.NO_CONTACT in played.statuses else "60s"  # on a busy machine too
        words = ("threads", 2, "window", "4M", "regroup", "500ms", "outage", "500ms", "wait", wait, "verbose", 2)
        tx = stage.tx(port_of(played.tx.socket), *words, "progress", "interval", "100ms", *lock.words)
        try:
            with Watch(WINDOW, tx):
                tx.feed([data])
                if name == "shown":
                    tx.hear("first contact")
                    tx.signal(signal.SIGUSR1)
                played.join()
                status = tx.process.wait(ENDS_WITHIN_S)
        except Exception as error:  # told together with the others
            return f"{name}, seed {SEED + number}: {error!r}"
        wrong = played.wrong
        if status not in played.statuses:
            wrong += f" status {status}"
        if any(not c.isprintable() and c != "\n" for c in tx.said):
            wrong += " it said what moves a cursor"
        return f"{name}, seed {SEED + number}: {wrong}\n{tx.said}" if wrong else ""

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        wrong = [said for said in pool.map(play, range(len(LIES)), LIES) if said]
    assert not wrong, "\n\n".join(wrong)
