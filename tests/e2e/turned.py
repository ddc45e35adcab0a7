"""The roles the other way round: a tx that listens, an rx that dials, and the two in every state of a stream."""

from collections.abc import Iterator
from typing import Any

from tests.e2e.helpers import KIB, LOOPBACK, MIB, Side, Stage, read_all, read_exactly, some_bytes, write_while_taken
from tests.e2e.proxy import Proxy

STATES = ["idle", "busy", "blocked"]


def listening(stage: Stage, *words: object, port: int = 0, stdin: Any = -1) -> Side:
    """A tx that listens."""
    side = stage.tx_words("tx", "listen", port, *words, stdin=stdin)
    side.port = int(side.hear(r"listening on port (\d+)")[1])
    return side


def dialling(stage: Stage, *to: Side | Proxy | tuple[str, int] | object) -> Side:
    """An rx that dials: sides, proxies and (host, port) are its paths, the rest are words."""
    words: list[object] = []
    for each in to:
        if isinstance(each, Side | Proxy):
            words += ["rx", LOOPBACK, each.port]
        elif isinstance(each, tuple):
            words += ["rx", *each]
        else:
            words.append(each)
    side = Side("rx", words, -3, -1, None, [])
    stage._sides.append(side)
    return side


def whole(rx: Side, tx: Side, data: bytes) -> None:
    """Feed `data` into tx; rx must deliver exactly that, and both must be content."""
    tx.feed([data])
    arrived = read_all(rx.output)
    assert len(arrived) == len(data) and arrived == data
    tx.ends(0)
    rx.ends(0)


def idle_pair(stage: Stage, *words: object, **options: Any) -> tuple[Side, Side]:
    """rx and tx that have moved 5 bytes and now wait for input. `words` are for tx."""
    tx = listening(stage, *words)
    rx = dialling(stage, tx, *options.get("rx_words", ()))
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    return rx, tx


def blocked_pair(stage: Stage, *words: object) -> tuple[Side, Side]:
    """rx whose output nobody reads, and tx that is held back by it."""
    tx = listening(stage, "window", "4M", *words)
    rx = dialling(stage, tx, "window", "4M")
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    write_while_taken(tx.input, quiet_s=0.5)
    return rx, tx


def endless() -> Iterator[bytes]:
    """More input than anybody takes."""
    block = some_bytes(64 * KIB)
    while True:
        yield block


def pair(stage: Stage, state: str, *words: object) -> tuple[Side, Side]:
    """rx and tx in one of the states of a stream."""
    if state == "blocked":
        return blocked_pair(stage, *words)
    rx, tx = idle_pair(stage, *words)
    if state == "busy":
        tx.feed(endless())
        read_exactly(rx.output, 10 * MIB)
    return rx, tx
