"""What the two ends say to each other through ssh: a request, an answer, an ending; each is one line of JSON.

Their first member, `viamillipede`, is the number of this protocol, so that a line is told from what a login shell
prints, and another protocol from ours.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from viamillipede import __version__
from viamillipede.errors import Failure
from viamillipede.protocol.wire import VERSION

PROTOCOL = 1
MARK = "viamillipede"
REQUEST_BYTES_MAX = 4 << 20  # a command line is not longer, nor all its words together
NOISE_BYTES_MAX = 256 << 10  # what a login shell may print before the answer
LINE_BYTES_MAX = 64 << 10  # of an answer, or an ending


class NotUnderstood(Failure):
    """What came is none of these messages; the text says what it was."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the far end is to do. `role`: tx or rx; `ports`: to choose from, (0, 0): any; `loopback`: listen there."""

    role: str
    key: str = field(repr=False)
    words: dict[str, str]
    command: list[str]
    ports: tuple[int, int] = (0, 0)
    loopback: bool = False
    verbose: int = -1
    brought: bool = False  # the program is in a folder that is removed at the end
    wire: int = VERSION
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Answer:
    """Where the far end listens, or (`status` and `error`) why it does not."""

    port: int = 0
    pid: int = 0
    status: int = 0
    error: str = ""
    wire: int = VERSION
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended: `status`, as an exit status, and why, if not well."""

    status: int
    error: str = ""


def another_version(why: str) -> str:
    """What is said where the two do not understand each other, about the one over there."""
    return f"viamillipede {__version__} over there is not of our version: {why}; install the same one at both ends"


_Message = TypeVar("_Message", Request, Answer, Ending)


def encode(message: Request | Answer | Ending) -> bytes:
    """One line. It begins with a newline: what stands before it may be half a line of somebody else's."""
    members = {MARK: PROTOCOL, "kind": _kind(type(message)), **asdict(message)}
    return b"\n" + json.dumps(members).encode() + b"\n"


def _kind(kind: type[Request | Answer | Ending]) -> str:
    return kind.__name__.lower()


def decode(kind: type[_Message], line: bytes) -> _Message | None:
    """The message; None for a line that is none of ours. Raises NotUnderstood."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or MARK not in found:
        return None
    if found[MARK] != PROTOCOL:
        raise NotUnderstood(f"it speaks protocol {found[MARK]!r:.20} through ssh, and we {PROTOCOL}")
    if found.get("kind") != _kind(kind):
        return None
    try:
        return kind(**_typed(kind, found))
    except (TypeError, ValueError, KeyError) as error:
        raise NotUnderstood(f"its message is malformed: {error}") from None


def _typed(kind: type[Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The members that we know, each of the type that it has with us. Raises ValueError."""
    values = {name: found[name] for name in kind.__slots__ if name in found}
    for name, value in values.items():
        if not _fits(kind.__annotations__[name], value):
            raise ValueError(f"{name} is no {getattr(kind.__annotations__[name], '__name__', 'such thing')}")
    if "ports" in values:
        values["ports"] = tuple(values["ports"])
    if "error" in values:  # it is printed, and must not move a cursor
        values["error"] = "".join(c if c.isprintable() or c == "\n" else "?" for c in values["error"])
    return values


def _fits(wanted: Any, value: Any) -> bool:
    if wanted == tuple[int, int]:
        return isinstance(value, list) and len(value) == 2 and all(_fits(int, each) for each in value)
    if wanted == list[str]:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if wanted == dict[str, str]:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
