"""Keys and phrases for processes: their files, the words that name them, and how either would look if it were shown."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.helpers import LOOPBACK, Side, Stage, read_exactly
from tests.e2e.turned import dialling, listening
from viamillipede.config import Secret
from viamillipede.secret import spell_key

KEY, ANOTHER_KEY = bytes(range(7, 39)), bytes(range(40, 72))
PHRASE, ANOTHER_PHRASE = "forty-two trees in the mist", "forty-two trees in the rain"
SECRETS = ["key", "phrase"]
WAYS = ["rx listens", "tx listens"]


@dataclass(frozen=True)
class Lock:
    """A key, or a phrase. `words`: what names it on the command line; `text`: what is in its file."""

    kind: str
    text: str
    data: bytes
    words: tuple[str, str]

    def shown_in(self, said: str) -> list[str]:
        """In which forms it stands there, whole or as the first half."""
        half = self.data[:16]
        coded = (spell(self.data), spell(half))
        forms = [self.text, *(form.rstrip("=") for form in coded), self.data.hex(), half.hex(), repr(half)[2:-1]]
        return [form for form in forms if form.lower() in said.lower()]


def spell(data: bytes) -> str:
    """In base64, without the last characters, which depend on what follows."""
    return base64.b64encode(data).decode().rstrip("=")[:-2]


def lock(folder: Path, kind: str = "key", another: bool = False) -> Lock:
    """A key or a phrase, and its file."""
    if kind == "key":
        data = ANOTHER_KEY if another else KEY
        text = spell_key(Secret(data))
    else:
        text = ANOTHER_PHRASE if another else PHRASE
        data = text.encode()
    path = folder / f"{kind}-{int(another)}"
    if not path.exists():
        path.touch(0o600)
        path.write_text(f"{text}\n")
    assert not os.stat(path).st_mode & 0o077
    return Lock(kind, text, data, (kind, str(path)))


def listens(stage: Stage, way: str, *words: object, port: int = 0) -> Side:
    """The side that waits for the other one."""
    return stage.rx(*words, port=port) if way == "rx listens" else listening(stage, *words, port=port)


def dials(stage: Stage, way: str, to: object, *words: object) -> Side:
    """The side that comes to it, or to a proxy."""
    port = to if isinstance(to, int) else to.port  # type: ignore[attr-defined]
    return stage.tx(port, *words) if way == "rx listens" else dialling(stage, (LOOPBACK, port), *words)


def players(way: str, listener: Side, dialler: Side) -> tuple[Side, Side]:
    """rx and tx."""
    return (listener, dialler) if way == "rx listens" else (dialler, listener)


def together(stage: Stage, way: str, *words: object, to: object = None) -> tuple[Side, Side]:
    """rx and tx with these words at both sides."""
    listener = listens(stage, way, *words)
    return players(way, listener, dials(stage, way, to or listener, *words))


def started(rx: Side, tx: Side) -> None:
    """The first bytes have come over."""
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
