"""The oracle of what may come out of rx: a second, simple reading of what the legs were told.

It keeps every frame that was ever announced and what came of it, believes nothing and throws nothing away.
"""

import itertools
from dataclasses import dataclass, field

import xxhash

from viamillipede.errors import FrameError
from viamillipede.protocol.wire import FROM_TX, HEADER_BYTES, Header, Kind, decode_header_untrusted


@dataclass(slots=True)
class _Announced:
    """A copy of a frame and what has come of it so far."""

    header: Header
    content: bytearray = field(default_factory=bytearray)


class LegSaid:
    """What one leg was told, in whole messages and beginnings of them."""

    def __init__(self, said: "Said") -> None:
        self._said, self._rest = said, bytearray()
        self._dead = False
        self._left = 0  # of the current payload
        self._frame: _Announced | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes on the leg."""
        self._rest += data
        while not self._dead and self._rest:
            if self._left:
                piece = self._rest[: self._left]
                del self._rest[: len(piece)]
                self._left -= len(piece)
                if self._frame is not None:
                    self._frame.content += piece
                continue
            if len(self._rest) < HEADER_BYTES:
                return
            try:
                header = decode_header_untrusted(self._rest[:HEADER_BYTES], FROM_TX)
            except FrameError:
                self._dead = True
                return
            del self._rest[:HEADER_BYTES]
            self._left, self._frame = header.length, None
            if header.kind is Kind.DATA:
                self._frame = self._said.announce(header)


class Said:
    """All legs together."""

    def __init__(self) -> None:
        self._frames: list[_Announced] = []

    def announce(self, header: Header) -> _Announced:
        """A frame begins."""
        self._frames.append(frame := _Announced(header))
        return frame

    def check(self, output: bytearray, start: int) -> None:
        """Each byte from `start` on was sent for the place where it came out."""
        at = start
        while at < len(output):
            end = max((self._agrees(frame, output, at) for frame in self._frames), default=at)
            assert end > at, f"byte {at} came out and was never sent for this place"
            at = end

    @staticmethod
    def _agrees(frame: _Announced, output: bytearray, at: int) -> int:
        """How far the frame says what came out, from `at` on."""
        offset, content = frame.header.offset, frame.content
        if not offset <= at < offset + len(content):
            return at
        end = min(len(output), offset + len(content))
        if output[at:end] == content[at - offset : end - offset]:
            return end
        while output[at] == content[at - offset]:
            at += 1
        return at

    def check_hashes(self, output: bytearray) -> None:
        """With checksums: what came out is whole frames, one behind the other, each with its hash; at last a part.

        Of a stream whose frames overlap that cannot be said: who sends it has lied about what it is.
        """
        places = sorted({(f.header.offset, f.header.offset + f.header.length) for f in self._frames})
        if any(second[0] < first[1] for first, second in itertools.pairwise(places)):
            return
        at, seq = 0, 0
        while at < len(output):
            found = [f.header for f in self._frames if f.header.seq == seq and f.header.offset == at]
            ends = {
                at + h.length for h in found if xxhash.xxh3_64_intdigest(output[at : at + h.length]) == h.payload_hash
            }
            if not ends:
                assert any(at + h.length > len(output) for h in found), f"frame {seq} at byte {at} has no such hash"
                return
            at, seq = min(ends), seq + 1
