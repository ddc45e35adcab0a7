"""Records: where they begin and end, that nothing unchecked is handed out, and that no nonce is ever used twice."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from unittest import mock

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import example, given
from hypothesis import strategies as st

from viamillipede.config import MIB
from viamillipede.protocol import sealing, wire
from viamillipede.protocol.noise import CIPHERS, CipherState, NotSealedForUs
from viamillipede.protocol.sealing import REKEY_RECORDS, Opener, Sealer
from viamillipede.protocol.wire import CONTROL_BYTES_MAX, HEADER_BYTES, RECORD_BYTES, Kind, encode_header

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
TAG = 16
SIZES = (0, 1, 17, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 2 * RECORD_BYTES, MIB + 5)


def sealed_message(sealer: Sealer, message: bytes, out: memoryview) -> memoryview:
    """Header and payload into the beginning of `out`, as a leg does it that sends a frame."""
    used = sealer.header(message[:HEADER_BYTES], out)
    used += sealer.payload(memoryview(message)[HEADER_BYTES:], out[used:])
    return out[:used]


def message(size: int, seq: int = 0) -> bytes:
    """A message with so much payload, unlike any other."""
    return encode_header(Kind.DATA, size, seq, 0, 0) + Random(seq + size).randbytes(size)


def cut(sizes: Sequence[int], record: int = RECORD_BYTES) -> list[int]:
    """How long the records of messages with these payloads are, said once more: a header, whole ones, the rest."""
    found = []
    for size in sizes:
        found.append(40 + 16)
        while size > record:
            found.append(record + 16)
            size -= record
        if size:
            found.append(size + 16)
    return found


def split(stream: bytes, lengths: Sequence[int]) -> list[bytes]:
    """The stream as records of these lengths, which must be all of it."""
    found, start = [], 0
    for length in lengths:
        found.append(stream[start : start + length])
        start += length
    assert start == len(stream)
    return found


def sealer(key: bytes = KEY, cipher: str = "AESGCM") -> Sealer:
    """One direction."""
    return Sealer(CipherState(cipher, key))


def opener(key: bytes = KEY, cipher: str = "AESGCM") -> Opener:
    """The same one at the other side."""
    return Opener(CipherState(cipher, key))


class Socket:
    """What comes in, in pieces of these sizes and then in one; 0: nothing is here yet."""

    def __init__(self, data: bytes, pieces: Sequence[int] = ()) -> None:
        self._data, self._pieces = memoryview(data), list(pieces)
        self.most = 0

    def recv_into(self, view: memoryview) -> int:
        """See socket."""
        self.most = max(self.most, len(view))
        piece = self._pieces.pop(0) if self._pieces else len(self._data)
        if not piece and len(self._data):
            raise BlockingIOError
        count = min(piece, len(view), len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def hear(box: Opener, sock: Socket, views: Sequence[int] = ()) -> bytes:
    """All that comes, asked for with views of these sizes and then with large ones."""
    heard, sizes = bytearray(), list(views)
    while True:
        view = memoryview(bytearray(sizes.pop(0) if sizes else MIB))
        try:
            count = box.read_into(sock.recv_into, view)
        except BlockingIOError:
            continue
        if not count:
            return bytes(heard)
        assert count <= len(view)
        heard += view[:count]


# Where records begin and end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cipher", "aead", "order"), [("AESGCM", AESGCM, "big"), ("ChaChaPoly", ChaCha20Poly1305, "little")]
)
def test_records_are_as_they_are_described(cipher: str, aead: Callable[[bytes], AESGCM], order: str) -> None:
    """Opened by the library alone: the n-th record has the nonce n and no associated data."""
    said = [message(size, seq) for seq, size in enumerate(SIZES)]
    ours = sealer(cipher=cipher)
    stream = ours.opening(b"greeting") + ours.messages(b"".join(said))
    records = split(stream, [8 + 16, *cut(SIZES)])
    opened = [
        aead(KEY).decrypt(bytes(4) + number.to_bytes(8, order), record, None)  # type: ignore[arg-type]
        for number, record in enumerate(records)
    ]
    assert opened[0] == b"greeting" and b"".join(opened[1:]) == b"".join(said)


@pytest.mark.parametrize("size", SIZES)
def test_a_message_is_sealed_into_what_it_is_said_to_need_and_no_more(size: int) -> None:
    out = memoryview(bytearray(b"\xaa" * (wire.sealed_bytes(size) + 10)))
    said = message(size)
    used = sealed_message(sealer(), said, out)
    assert len(used) == wire.sealed_bytes(size) == sum(cut([size])) and out[len(used) :] == b"\xaa" * 10
    assert bytes(used) == sealer().messages(said)


def test_an_opening_crosses_and_then_messages_do() -> None:
    ours, theirs = sealer(), opener()
    assert theirs.opening(ours.opening(b"one")) == b"one"
    assert theirs.opening(ours.opening(b"another")) == b"another"
    said = message(5)
    assert hear(theirs, Socket(ours.messages(said))) == said


SMALL = 64  # of a record, so that a short stream has many


@given(
    sizes=st.lists(st.sampled_from([0, 1, SMALL - 1, SMALL, SMALL + 1, 2 * SMALL, 3 * SMALL + 7]), max_size=6),
    pieces=st.lists(st.integers(0, 130), max_size=40),
    views=st.lists(st.integers(1, 200), max_size=40),
)
@example(sizes=[0, 1, 3 * SMALL + 7], pieces=[0, 1] * 200, views=[1] * 500)
@example(sizes=[2 * SMALL], pieces=[], views=[40, SMALL, SMALL])
@example(sizes=[2 * SMALL], pieces=[], views=[40, SMALL - 1, SMALL, SMALL])
def test_whatever_the_pieces_and_the_views_it_arrives(sizes: list[int], pieces: list[int], views: list[int]) -> None:
    said = b"".join(message(size, seq) for seq, size in enumerate(sizes))
    with mock.patch.object(sealing, "RECORD_BYTES", SMALL), mock.patch.object(wire, "RECORD_BYTES", SMALL):
        stream = sealer().messages(said)
        assert len(stream) == sum(cut(sizes, SMALL))
        assert hear(opener(), Socket(stream, pieces), views) == said


@given(pieces=st.lists(st.integers(0, 20_000), max_size=20), views=st.lists(st.integers(1, 20_000), max_size=20))
def test_whatever_the_pieces_small_messages_arrive_together(pieces: list[int], views: list[int]) -> None:
    said = b"".join(message(size, seq) for seq, size in enumerate([0, 32, 48, 0, CONTROL_BYTES_MAX, 7] * 4))
    theirs, sock, heard = opener(), Socket(sealer().messages(said), pieces), bytearray()
    while len(heard) < len(said):
        view = memoryview(bytearray(views.pop() + CONTROL_BYTES_MAX if views else 64 * 1024))
        try:
            count = theirs.read_all(sock.recv_into, view)
        except BlockingIOError:
            continue
        assert count
        heard += view[:count]
    assert heard == said and theirs.read_all(sock.recv_into, view) == 0


def test_what_is_here_is_known_to_be_here() -> None:
    theirs, sock = opener(), Socket(sealer().messages(message(10)))
    small = memoryview(bytearray(HEADER_BYTES - 1))
    assert not theirs.pending()
    assert theirs.read_into(sock.recv_into, small) == HEADER_BYTES - 1 and theirs.pending()
    assert theirs.read_into(sock.recv_into, small) == 1 and not theirs.pending()


# Memory --------------------------------------------------------------------------------------------------------


def test_no_more_than_one_record_is_held_whatever_a_header_announces() -> None:
    ours, theirs = sealer(), opener()
    first = Socket(ours.messages(message(0)))
    hear(theirs, first)
    assert first.most == 56 == len(theirs._buffer)
    huge = encode_header(Kind.DATA, (1 << 32) - 1, 0, 0, 0)
    sock = Socket(ours.opening(huge))
    hear(theirs, sock)
    assert sock.most == len(theirs._buffer) == RECORD_BYTES + TAG


# What is not accepted ------------------------------------------------------------------------------------------

LENGTHS = cut([5, 300, 0])
RECORDS = split(sealer().messages(b"".join(message(size) for size in (5, 300, 0))), LENGTHS)
PLAIN = b"".join(message(size) for size in (5, 300, 0))


def opened(records: Sequence[bytes], key: bytes = KEY) -> bytes:
    """All of them."""
    return hear(opener(key), Socket(b"".join(records)))


def test_unchanged_they_are_opened() -> None:
    assert opened(RECORDS) == PLAIN


@pytest.mark.parametrize("number", range(len(RECORDS)))
@pytest.mark.parametrize("place", [0, 5, -17, -1])
def test_a_changed_record_is_refused(number: int, place: int) -> None:
    changed = bytearray(RECORDS[number])
    changed[max(place, -len(changed))] ^= 0x40
    with pytest.raises(NotSealedForUs, match="not sealed with our key"):
        opened([*RECORDS[:number], bytes(changed), *RECORDS[number + 1 :]])


def test_no_changed_bit_of_a_header_is_accepted() -> None:
    for bit in range(8 * len(RECORDS[0])):
        changed = bytearray(RECORDS[0])
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotSealedForUs):
            opened([bytes(changed)])


@pytest.mark.parametrize("number", range(len(RECORDS) - 1))
def test_a_record_that_is_left_out_is_noticed_with_the_next_one(number: int) -> None:
    box, sock = opener(), Socket(b"".join([*RECORDS[:number], *RECORDS[number + 1 :], bytes(1000)]))
    with pytest.raises(NotSealedForUs):
        hear(box, sock)


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_a_record_that_comes_again_is_refused(number: int) -> None:
    with pytest.raises(NotSealedForUs):
        opened([*RECORDS[: number + 1], RECORDS[number], *RECORDS[number + 1 :], bytes(1000)])


def test_two_records_of_one_length_that_have_changed_places_are_refused() -> None:
    same = split(sealer().messages(message(0) + message(0)), cut([0, 0]))
    with pytest.raises(NotSealedForUs):
        opened([same[1], same[0]])


def test_a_record_of_another_leg_is_refused_in_the_same_place() -> None:
    others = split(sealer(OTHER).messages(PLAIN), LENGTHS)
    for number in range(len(RECORDS)):
        with pytest.raises(NotSealedForUs):
            opened([*RECORDS[:number], others[number], *RECORDS[number + 1 :]])


def test_what_we_have_said_is_refused_when_it_is_said_back() -> None:
    ours, theirs = CipherState("AESGCM", KEY), CipherState("AESGCM", OTHER)
    said = Sealer(ours).messages(PLAIN)
    with pytest.raises(NotSealedForUs):
        hear(Opener(theirs), Socket(said))


@pytest.mark.parametrize("end", [1, 55, 57, sum(LENGTHS) - 1])
def test_of_a_record_that_is_cut_nothing_is_handed_out(end: int) -> None:
    heard = hear(opener(), Socket(b"".join(RECORDS)[:end]))
    assert PLAIN.startswith(heard)
    whole = [record for number, record in enumerate(RECORDS) if sum(LENGTHS[: number + 1]) <= end]
    assert len(heard) == sum(len(record) - TAG for record in whole)


@pytest.mark.parametrize("count", [16, 17, 56, 152])
def test_an_opening_that_was_not_sealed_is_refused(count: int) -> None:
    with pytest.raises(NotSealedForUs):
        opener().opening(bytes(count))


# Keys and nonces -----------------------------------------------------------------------------------------------


class Spy:
    """The AEADs of one side, which remember what each key was used for."""

    def __init__(self) -> None:
        self.used: Counter[bytes] = Counter()
        self.nonces: set[tuple[bytes, bytes]] = set()

    def __call__(self, key: bytes) -> "SpiedAead":
        return SpiedAead(self, key)

    def note(self, key: bytes, nonce: bytes) -> None:
        """It is used for this now."""
        assert (key, nonce) not in self.nonces, "a nonce has come twice"
        self.nonces.add((key, nonce))
        self.used[key] += 1


class SpiedAead:
    """An AEAD for one key."""

    def __init__(self, spy: Spy, key: bytes) -> None:
        self._spy, self._key, self._aead = spy, key, AESGCM(key)

    def encrypt_into(self, nonce: bytes, data: bytes, about: bytes | None, buf: memoryview) -> int:
        """See Aead."""
        self._spy.note(self._key, bytes(nonce))
        return self._aead.encrypt_into(nonce, data, about, buf)

    def decrypt_into(self, nonce: bytes, data: bytes, about: bytes | None, buf: memoryview) -> int:
        """See Aead."""
        self._spy.note(self._key, bytes(nonce))
        return self._aead.decrypt_into(nonce, data, about, buf)


def spied(spy: Spy) -> CipherState:
    """A state all of whose keys are watched."""
    with mock.patch.dict(CIPHERS, {"AESGCM": (spy, "big")}):
        return CipherState("AESGCM", KEY)


def nonce(count: int) -> bytes:
    """The number of a record, as AES-GCM wants it."""
    return bytes(4) + count.to_bytes(8, "big")


LAST = nonce(2**64 - 1)  # of no record: the next key is made with it


def next_key(key: bytes) -> bytes:
    """REKEY of the Noise Protocol Framework, said once more."""
    return AESGCM(key).encrypt(LAST, bytes(32), None)[:32]


def test_no_nonce_comes_twice_and_no_key_is_used_for_too_long() -> None:
    """Three new keys, in messages of one to three records; the other side goes along."""
    sending, receiving = Spy(), Spy()
    said = [message(size) for size in (0, 5, 2 * SMALL)]
    view, out, count = memoryview(bytearray(1000)), memoryview(bytearray(1000)), 0
    with mock.patch.object(sealing, "RECORD_BYTES", SMALL):
        ours, theirs = Sealer(spied(sending)), Opener(spied(receiving))
        while count < 3 * REKEY_RECORDS + 1000:
            for each in said:
                sock = Socket(bytes(sealed_message(ours, each, out)))
                heard = 0
                while heard < len(each):
                    heard += theirs.read_into(sock.recv_into, view[heard:])
                assert view[:heard] == each
            count += len(cut([0, 5, 2 * SMALL], SMALL))
    keys = [KEY]
    for _ in range(3):
        keys.append(next_key(keys[-1]))
    for spy in (sending, receiving):
        assert spy.nonces - {(key, LAST) for key in keys[:3]} == {
            (keys[number // REKEY_RECORDS], nonce(number)) for number in range(count)
        }
        assert max(spy.used.values()) == REKEY_RECORDS + 1, "and one is for the next key"


def test_a_new_key_comes_long_before_the_limits_of_the_ciphers() -> None:
    """SP 800-38D: 2**32 uses of a key with nonces of its own, 2**36 bytes at most in each; ours are far below."""
    assert REKEY_RECORDS <= 1 << 20 and REKEY_RECORDS * RECORD_BYTES <= 1 << 36
    assert sealing.REKEY_RECORDS * 16 < 1 << 32


@pytest.mark.parametrize("missed", [0, 1])
def test_both_sides_must_change_the_key_at_the_same_record(missed: int) -> None:
    state = CipherState("AESGCM", KEY)
    state.count = REKEY_RECORDS
    record = Sealer(state).opening(b"the first one under the second key")
    theirs = CipherState("AESGCM", KEY)
    theirs.count = REKEY_RECORDS
    if missed:
        with pytest.raises(NotSealedForUs):
            theirs.open_into(record, memoryview(bytearray(len(record) - TAG)))
    else:
        assert Opener(theirs).opening(record) == b"the first one under the second key"
    with pytest.raises(InvalidTag):
        AESGCM(KEY).decrypt(nonce(REKEY_RECORDS), record, None)
    assert AESGCM(next_key(KEY)).decrypt(nonce(REKEY_RECORDS), record, None)


def test_another_process_goes_on_where_one_has_stopped() -> None:
    ours, theirs = sealer(), opener()
    assert theirs.opening(ours.opening(b"greeting")) == b"greeting"
    assert hear(theirs, Socket(ours.messages(PLAIN))) == PLAIN
    ours, theirs = (
        Sealer(CipherState.imported(*ours.export())),
        Opener(CipherState.imported(*theirs.export())),
    )
    assert hear(theirs, Socket(ours.messages(PLAIN))) == PLAIN


def test_no_key_is_shown() -> None:
    for each in (CipherState("AESGCM", KEY), sealer(), opener()):
        assert KEY.hex() not in repr(each) and str(KEY) not in repr(each) and repr(KEY)[2:-1] not in str(each)
