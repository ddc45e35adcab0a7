"""Cutting a byte stream into control messages."""

import xxhash

from viamillipede.errors import FrameError
from viamillipede.protocol.wire import FROM_RX, HEADER_BYTES, Header, Kind, decode_header_untrusted


class ControlDecoder:
    """Cuts what rx sends into messages; bytes may come in any pieces. Memory: one message."""

    def __init__(self, allowed: frozenset[Kind] = FROM_RX) -> None:
        self._allowed = allowed
        self._buffer = bytearray()
        self._header: Header | None = None

    def feed_untrusted(self, data: bytes | memoryview) -> list[tuple[Header, bytes]]:
        """The messages that `data` completes, each with its payload, already checked. FrameError."""
        buffer, messages = self._buffer, []
        buffer += data
        position = 0
        while True:
            if self._header is None:
                if len(buffer) - position < HEADER_BYTES:
                    break
                self._header = decode_header_untrusted(buffer[position : position + HEADER_BYTES], self._allowed)
                position += HEADER_BYTES
            header = self._header
            if len(buffer) - position < header.length:
                break
            payload = bytes(buffer[position : position + header.length])
            if xxhash.xxh3_64_intdigest(payload) != header.payload_hash:
                raise FrameError("damaged payload: its hash is wrong")
            position += header.length
            self._header = None
            messages.append((header, payload))
        del buffer[:position]
        return messages
