"""What crosses a sealed leg: the same messages as in clear, each cut into records that are sealed one by one.

A record is at most RECORD_BYTES of a message and a tag of 16 bytes. Where records begin and end follows from the
messages themselves: each greeting, call and answer is one record; then each header is one, and its payload is cut
into whole records and a rest. The nonce is the number of the record on this leg in this direction, so a record that
is cut, changed, left out, repeated or comes from elsewhere cannot be opened, and the leg is closed. After every
REKEY_RECORDS records comes a new key.
"""

from collections.abc import Callable

from viamillipede.config import MIB
from viamillipede.protocol.noise import Buffer, CipherState
from viamillipede.protocol.wire import (
    CONTROL_BYTES_MAX,
    HEADER_BYTES,
    RECORD_BYTES,
    TAG_BYTES,
    payload_bytes,
    sealed_bytes,
)

NAMES = {"AESGCM": "AES-256-GCM", "ChaChaPoly": "ChaCha20-Poly1305"}
REKEY_RECORDS = 1 << 16  # at most 8 GiB under one key: AES-GCM allows 2**36 bytes a nonce and 2**32 nonces, and more
assert REKEY_RECORDS * RECORD_BYTES <= 1 << 33 and MIB % RECORD_BYTES == 0


class Sealer:
    """One direction of a leg, at the side that sends."""

    def __init__(self, state: CipherState) -> None:
        self._state = state

    @property
    def suite(self) -> str:
        """One of noise.CIPHERS."""
        return self._state.cipher

    @property
    def cipher(self) -> str:
        """The same in words."""
        return NAMES[self._state.cipher]

    def _seal(self, data: Buffer, out: memoryview) -> int:
        state = self._state
        if state.count and not state.count % REKEY_RECORDS:
            state.rekey()
        end = len(data) + TAG_BYTES
        state.seal_into(data, out[:end])
        return end

    def opening(self, data: bytes) -> bytes:
        """A greeting, a call or an answer, as one record."""
        out = bytearray(len(data) + TAG_BYTES)
        self._seal(data, memoryview(out))
        return bytes(out)

    def header(self, header: Buffer, out: memoryview) -> int:
        """A header into the beginning of `out`; how much of that is used."""
        return self._seal(header, out)

    def payload(self, payload: memoryview, out: memoryview) -> int:
        """All of a payload, or as many whole records of it; how much of `out` is used."""
        end = 0
        for start in range(0, len(payload), RECORD_BYTES):
            end += self._seal(payload[start : start + RECORD_BYTES], out[end:])
        return end

    def messages(self, data: bytes) -> bytes:
        """Whole messages, one behind the other."""
        view, sealed = memoryview(data), bytearray()
        while view:
            end = HEADER_BYTES + payload_bytes(view)
            out = memoryview(bytearray(sealed_bytes(end - HEADER_BYTES)))
            used = self.header(view[:HEADER_BYTES], out)
            used += self.payload(view[HEADER_BYTES:end], out[used:])
            sealed += out[:used]
            view = view[end:]
        return bytes(sealed)

    def export(self) -> tuple[str, bytes, int]:
        """See CipherState."""
        return self._state.export()


class Opener:
    """One direction of a leg, at the side that receives. Memory: one record.

    What it hands out is what was sealed, in order, and nothing that was not checked; NotSealedForUs is the end.
    """

    def __init__(self, state: CipherState) -> None:
        self._state = state
        self._buffer = memoryview(bytearray(HEADER_BYTES + TAG_BYTES))
        self._got = 0  # bytes of the record that are here
        self._next = HEADER_BYTES  # how long the record is, without its tag
        self._left = 0  # of the payload, this record included; 0: it is a header
        self._opened: memoryview = memoryview(b"")  # what of the last record was not handed out yet

    def _open(self, sealed: Buffer, out: memoryview) -> None:
        state = self._state
        if state.count and not state.count % REKEY_RECORDS:
            state.rekey()
        state.open_into(sealed, out)

    def opening(self, sealed: Buffer) -> bytes:
        """A greeting, a call or an answer, out of its record. NotSealedForUs."""
        out = bytearray(len(sealed) - TAG_BYTES)
        self._open(sealed, memoryview(out))
        return bytes(out)

    def read_into(self, receive: Callable[[memoryview], int], view: memoryview) -> int:
        """The next bytes of the messages into `view`, at most to the end of a header or of a payload; how many.

        0: there are no more. receive: as socket.recv_into; what it raises is passed on, unless something has come
        before, and costs nothing that has come. NotSealedForUs.
        """
        if self._opened:
            return self._hand_out(view)
        end = 0
        while True:
            size = self._next
            try:
                sealed = self._receive(receive, size + TAG_BYTES)
            except BlockingIOError:
                if not end:
                    raise
                return end
            if sealed is None:
                return end
            direct = len(view) - end >= size
            opened = view[end : end + size] if direct else sealed[:size]
            self._open(sealed, opened)
            self._on_record(opened)
            if not direct:
                self._opened = opened
                return end or self._hand_out(view)
            end += size
            if not self._left or end == len(view):
                return end

    def _receive(self, receive: Callable[[memoryview], int], size: int) -> memoryview | None:
        """A whole record; None: it does not come any more."""
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        sealed = self._buffer[:size]
        while self._got < size:
            count = receive(sealed[self._got :])
            if not count:
                return None
            self._got += count
        self._got = 0
        return sealed

    def _hand_out(self, view: memoryview) -> int:
        count = min(len(view), len(self._opened))
        view[:count] = self._opened[:count]
        self._opened = self._opened[count:]
        return count

    def read_all(self, receive: Callable[[memoryview], int], view: memoryview) -> int:
        """The same, as long as there is something, for what comes in small messages; `view` has room for many."""
        end = self.read_into(receive, view)
        while end and len(view) - end >= CONTROL_BYTES_MAX:
            try:
                count = self.read_into(receive, view[end:])
            except BlockingIOError:
                break
            if not count:  # the next call will say so
                break
            end += count
        return end

    def _on_record(self, opened: memoryview) -> None:
        self._left = self._left - len(opened) if self._left else payload_bytes(opened)
        self._next = min(self._left, RECORD_BYTES) or HEADER_BYTES

    def pending(self) -> bool:
        """Whether there is more to hand out without receiving anything."""
        return bool(self._opened)

    def export(self) -> tuple[str, bytes, int]:
        """See CipherState; only between two records."""
        assert not self._got and not self._opened
        return self._state.export()
