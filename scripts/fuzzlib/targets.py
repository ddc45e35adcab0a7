"""The targets by name, and for each a few small scripts to begin with."""

import random
from collections.abc import Callable

from . import doors, files, openings, records, to_rx, to_tx
from .script import NUMBERS, RELATIVE

TARGETS: dict[str, Callable[[bytes], None]] = {
    "rx": to_rx.run,
    "rx-sealed": to_rx.run_sealed,
    "tx": to_tx.run,
    "tx-sealed": to_tx.run_sealed,
    "records": records.run,
    "openings": openings.run,
    "doors": doors.run,
    "files": files.run,
}
SCRIPT_BYTES_MAX = 4096
_WHOLE = 0  # of a message, all of it at once
_KILO = RELATIVE + NUMBERS.index(1000)


def close() -> None:
    """Give back what targets hold between two inputs."""
    doors.close()
    files.close()


def seeds(name: str) -> list[bytes]:
    """Small scripts that get far; the same each time."""
    if name.startswith("rx"):
        return [_rx(flags) for flags in (0, 1, 4, 8, 32, 128, 129)]
    if name.startswith("tx"):
        return [_tx(flags) for flags in (2, 4, 8, 16, 32, 128, 130, 136)] + [_called()]
    if name == "doors":
        return [bytes([flags, role]) + bytes(60) for flags in (0, 1, 2, 33, 128, 129, 130, 161) for role in (1, 3)]
    if name == "files":
        key = b"viamillipede-key-1:" + b"A" * 48
        return [b"\0" + key, b"\1# a key\n" + key + b"\n", b"\2correct horse\n", b'\3threads 16\nkey = "x" # y\n']
    return [bytes([count]) + random.Random(count).randbytes(60) for count in range(6)]


def _rx(flags: int) -> bytes:
    """Frames on all legs, one in two parts, one twice; the end, the digest, bye."""
    out = bytearray([flags, *([0] if flags & 16 else [])])
    for number in range(8):
        out += bytes([0, number % 4, _KILO, _WHOLE])
    out += bytes([0, 1, _KILO, 160, 4, 2, 3, 0, 0, _WHOLE, 12, 1, 0, 15, 0, 1])
    return bytes(out) + bytes([6, 3, _WHOLE, 10, 2, _WHOLE, 15, 0, 2])


def _tx(flags: int) -> bytes:
    """Input, acknowledgements, a request, its end, digest and done."""
    out = bytearray([flags, 0])
    for leg in range(4):
        out += bytes([3, leg, 0, 0, 0, 0])
    for leg in range(8):
        out += bytes([0, 0, _KILO, 1, 3, leg % 4, leg % 2, 0, 0])
    out += bytes([6, 1, 0, 0, 1, 13, 0, 2, 0, 0, 0, 1])
    return bytes(out) + bytes([3, 0, 7, 0, 0, 3, 1, 7, 0, 0, 7, 2, 0, 0, 8, 3, 1, 0])


def _called() -> bytes:
    """The same, after calls."""
    return bytes([1, 0]) + bytes([14, 0, 0, 2, 0, 1, 1, 14, 0, 0, 0, 0, 1, 1]) + _tx(0)[2:]
