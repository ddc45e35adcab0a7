"""The stream of a run: bytes that look random and follow from the seed, anywhere, without being stored."""

import random
from collections.abc import Iterator

BLOCK_BYTES = 64 << 10
_BLOCKS_KEPT = 16  # what was fed last is what is read next, mostly


class Content:
    """The stream of `seed`, endless. No two blocks are alike, so what is lost, doubled or displaced is noticed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._blocks: dict[int, bytes] = {}

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = random.Random(self._seed << 40 | number).randbytes(BLOCK_BYTES)
            if len(self._blocks) > _BLOCKS_KEPT:
                del self._blocks[next(iter(self._blocks))]
        return block

    def piece(self, start: int, count: int) -> bytes:
        """Bytes from `start` on: `count` of them, or fewer, up to the end of a block."""
        number, offset = divmod(start, BLOCK_BYTES)
        return self._block(number)[offset : offset + count]

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes start ..< end, block by block."""
        while start < end:
            piece = self.piece(start, end - start)
            start += len(piece)
            yield piece

    def differs(self, start: int, data: bytes) -> int | None:
        """The offset in the stream of the first byte of `data`, which is to stand at `start`, that is another one."""
        at = 0
        for piece in self.pieces(start, start + len(data)):
            found = data[at : at + len(piece)]
            if found != piece:
                return start + at + next(i for i in range(len(piece)) if found[i] != piece[i])
            at += len(piece)
        return None
