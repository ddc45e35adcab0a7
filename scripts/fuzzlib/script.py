"""A fuzzer's bytes, read as decisions. At their end every decision is 0, so each script comes to an end."""

from collections.abc import Sequence
from typing import TypeVar

from viamillipede.config import FRAME_BYTES_MAX, FRAMES_MAX, KIB, LEGS_MAX

T = TypeVar("T")
NUMBERS = (
    0, 1, 2, 3, 5, 39, 40, 41, 1000, KIB, LEGS_MAX - 1, LEGS_MAX, FRAMES_MAX - 1, FRAMES_MAX, 16 * KIB, 16 * KIB + 1,
    64 * KIB, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
    (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip
RELATIVE = 96  # bytes below say a distance from something that the script knows
assert RELATIVE + len(NUMBERS) <= 254


class Script:
    """Reads from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """0 ..= 255."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self, count: int) -> bytes:
        """The next bytes, `count` of them unless the script ends before."""
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def choose(self, among: Sequence[T]) -> T:
        """One of them."""
        return among[self.byte() % len(among)]

    def number(self, near: int = 0, bits: int = 64) -> int:
        """Something near `near`, at a limit, or anything; it fits so many bits, unsigned."""
        said = self.byte()
        if said < RELATIVE:
            found = max(0, near + (said + 1) // 2 * (1 if said % 2 else -1))
        elif said < RELATIVE + len(NUMBERS):
            found = NUMBERS[said - RELATIVE]
        elif said < 240:
            found = int.from_bytes(self.take(2), "big")
        else:
            found = int.from_bytes(self.take(8), "big")
        return found & ((1 << bits) - 1)
