"""What a check has found: a value, whether it limits a transfer, why that matters, and what mends it."""

from dataclasses import dataclass
from enum import Enum

SYSCTL_FILE = "/etc/sysctl.d/90-viamillipede.conf"


class State(Enum):
    """How things are. The values are what JSON has."""

    OK = "ok"
    NOTE = "note"  # limits on some networks, or for some streams
    LIMITS = "limits"
    UNKNOWN = "unknown"  # cannot be read here; never a guess


@dataclass(frozen=True, slots=True)
class Keep:
    """A line for a configuration file, so that a setting outlives a restart. `where`: the file, or how to find it."""

    where: str
    line: str


@dataclass(frozen=True, slots=True)
class Finding:
    """`value`: as measured, for a reader. `why`: half a line. `mend`: commands, most of them for root."""

    name: str
    value: str
    state: State
    why: str
    mend: tuple[str, ...] = ()
    keep: tuple[Keep, ...] = ()


def fine(name: str, value: str, why: str) -> Finding:
    """Nothing to do."""
    return Finding(name, value, State.OK, why)


def unknown(name: str, why: str) -> Finding:
    """`why`: what could not be read."""
    return Finding(name, "unknown", State.UNKNOWN, why)


def sysctl(name: str, value: object) -> tuple[tuple[str, ...], tuple[Keep, ...]]:
    """The command that sets it, and the line that keeps it: a Finding's `mend` and `keep`."""
    text = f"'{value}'" if " " in str(value) else str(value)
    return (f"sysctl -w {name}={text}",), (Keep(SYSCTL_FILE, f"{name} = {value}"),)
