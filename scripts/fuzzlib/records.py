"""The records of a sealed leg: what is handed out was sealed for this place, whatever comes."""

import contextlib

from viamillipede.config import KIB
from viamillipede.protocol.noise import CIPHERS, CipherState, NotSealedForUs
from viamillipede.protocol.sealing import REKEY_RECORDS, Opener, Sealer
from viamillipede.protocol.wire import HEADER_BYTES, RECORD_BYTES, TAG_BYTES, Kind, encode_control, encode_header

from .script import Script

KEY = bytes(range(32))
COUNTS = (0, REKEY_RECORDS - 2, REKEY_RECORDS, 5 * REKEY_RECORDS - 1)
VIEWS = (1, HEADER_BYTES, 100, 4 * KIB, RECORD_BYTES, 1 << 20)


def run(data: bytes) -> None:
    """Records as they are sealed, with a few faults; or raw bytes."""
    script = Script(data)
    cipher, count = script.choose(tuple(CIPHERS)), script.choose(COUNTS)
    sealer = Sealer(CipherState.imported(cipher, KEY, count))
    opener = Opener(CipherState.imported(cipher, KEY, count))
    plain, sealed = bytearray(), []
    for _ in range(script.byte() % 8):
        message = _message(script)
        plain += message
        sealed.append(sealer.messages(message))
    if not sealed:
        sealed = [script.take(script.byte() * 8)]
    elif script.byte() % 2:
        _spoil(script, sealed)
    _open(script, opener, b"".join(sealed), bytes(plain))


def _message(script: Script) -> bytes:
    if script.byte() % 4:
        return encode_control(script.choose(tuple(Kind)), script.number(), script.number(), script.take(script.byte()))
    size = min(script.number(RECORD_BYTES, 20), 3 * RECORD_BYTES)
    return encode_header(Kind.DATA, size, 0, 0, 0) + bytes([script.byte()]) * size


def _spoil(script: Script, sealed: list[bytes]) -> None:
    """Change, cut, leave out, repeat, swap, insert."""
    for _ in range(1 + script.byte() % 3):
        kind, at = script.byte() % 6, script.byte() % len(sealed)
        piece = bytearray(sealed[at])
        where = script.number(0, 20) % (len(piece) + 1)
        if kind == 0 and where < len(piece):
            piece[where] ^= 1 + script.byte() % 255
        elif kind == 1:
            del piece[where : where + 1 + script.byte()]
        elif kind == 2:
            piece[where:where] = script.take(script.byte())
        elif kind == 3:
            piece += sealed[script.byte() % len(sealed)]
        elif kind == 4:
            other = script.byte() % len(sealed)
            piece, sealed[other] = bytearray(sealed[other]), sealed[at]
        else:
            piece.clear()
        sealed[at] = bytes(piece)


def _open(script: Script, opener: Opener, sealed: bytes, plain: bytes) -> None:
    rest, done, size = memoryview(sealed), 0, max(script.choose(VIEWS), len(plain) // 256)
    pieces, starved = (
        (max(1 + script.byte() * 64, len(sealed) // 256), 1 << 30)[script.byte() % 2],
        bool(script.byte() % 2),
    )
    turn = 0

    def receive(view: memoryview) -> int:
        nonlocal rest, turn
        turn += 1
        if not rest or (starved and turn % 2):
            raise BlockingIOError
        count = min(len(view), len(rest), pieces)
        view[:count] = rest[:count]
        rest = rest[count:]
        return count

    buffer = memoryview(bytearray(size))
    method = opener.read_all if script.byte() % 2 else opener.read_into
    with contextlib.suppress(NotSealedForUs):
        while True:
            try:
                count = method(receive, buffer)
            except BlockingIOError:
                if rest:
                    continue
                break
            new, done = bytes(buffer[:count]), done + count
            assert plain[done - count : done] == new, "something was handed out that was not sealed for this place"
            assert len(opener._buffer) <= RECORD_BYTES + TAG_BYTES
