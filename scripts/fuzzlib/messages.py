"""Messages as a script wants them: any kind, any values, with hashes that are right unless it says otherwise."""

import struct

import xxhash

from viamillipede.config import ACK_RANGES_MAX, REASON_BYTES_MAX
from viamillipede.protocol.wire import CONTROL_BYTES_MAX, HEADER_BYTES, Kind, encode_header

from .script import Script

KINDS = tuple(Kind)
_FIELDS_BYTES = HEADER_BYTES - 8
_HASH = struct.Struct("!Q")


def any_message(script: Script, near_seq: int = 0, near_offset: int = 0) -> bytes:
    """A header and its payload, which may be shorter than it says."""
    kind, shape = script.choose(KINDS), script.byte()
    seq, offset = script.number(near_seq), script.number(near_offset)
    payload = _payload(script, kind, near_seq)
    length = script.number(len(payload), 32) if shape & 1 else len(payload)
    payload_hash = script.number() if shape & 2 else xxhash.xxh3_64_intdigest(payload)
    header = bytearray(encode_header(kind, length, seq, offset, payload_hash))
    if shape & 4:
        header[script.byte() % HEADER_BYTES] ^= 1 << script.byte() % 8
        if shape & 8:
            header = with_hash(header)
    return bytes(header) + payload


def _payload(script: Script, kind: Kind, near: int) -> bytes:
    match kind:
        case Kind.ACK:
            waiting, waiting_seq, first, second = (script.number(near) for _ in range(4))
            ranges = [script.number(near) for _ in range(2 * (script.byte() % 8))]
            if script.byte() % 4:
                ranges = sorted(ranges)
            ranges *= 1 if script.byte() % 16 else ACK_RANGES_MAX
            return struct.pack(f"!{4 + len(ranges)}Q", waiting % 3, waiting_seq, first, second, *ranges)
        case Kind.WAITS:
            return struct.pack("!6Q", *(script.number() for _ in range(6)))
        case Kind.LEGS:
            return b"".join(struct.pack("!H", script.number(1, 16)) for _ in range(1 + script.byte() % 70))
        case Kind.ABORT | Kind.REFUSAL:
            return script.take(script.byte()) * (1 if script.byte() % 16 else REASON_BYTES_MAX // 64)
        case Kind.SUM | Kind.DIGEST:
            return script.take(script.byte() % 80)
    size = script.byte()
    return script.take(size) if size < 128 else bytes(script.number(16, 14))[:CONTROL_BYTES_MAX]


def with_hash(header: bytes | bytearray) -> bytearray:
    """The header, with the hash that its fields have."""
    fields = bytes(header[:_FIELDS_BYTES])
    return bytearray(fields + _HASH.pack(xxhash.xxh3_64_intdigest(fields)))


def mended(data: bytes) -> bytes:
    """Raw bytes as messages: where a header stands its magic and hashes are made right, its values stay."""
    out, at = bytearray(), 0
    while len(data) - at >= HEADER_BYTES:
        header = bytearray(data[at : at + HEADER_BYTES])
        at += HEADER_BYTES
        header[:2], header[3] = b"vm", 0
        header[2] = KINDS[header[2] % len(KINDS)]
        length = int.from_bytes(header[4:8], "big")
        if length > CONTROL_BYTES_MAX and header[7] % 2:  # mostly one that can be
            header[4:7] = bytes(3)
            length = header[7]
        payload = data[at : at + length]
        at += length
        header[24:32] = _HASH.pack(xxhash.xxh3_64_intdigest(payload))
        out += with_hash(header) + payload
    return bytes(out + data[at:])
