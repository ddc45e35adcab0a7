"""Hello and welcome: where each field stands, and which values cannot be."""

import pytest

from viamillipede.errors import FrameError
from viamillipede.protocol import hello
from viamillipede.protocol.hello import (
    HELLO_BYTES,
    MESSAGE_BYTES,
    PHRASE_BYTES,
    SUITES,
    WELCOME_BYTES,
    Hello,
    Mode,
    choose_suite,
    decode_choice,
    decode_hello_untrusted,
    decode_offer,
    encode_choice,
    encode_offer,
    encode_welcome,
)
from viamillipede.protocol.wire import ANSWER_BYTES, VERSION, Opening, Verdict

HANDLE = bytes(range(1, 17))
HELLOS = [Hello(Mode.FIRST), Hello(Mode.PHRASE), Hello(Mode.JOIN, HANDLE)]


def test_sizes_never_change() -> None:
    """Changing one changes the version."""
    assert (HELLO_BYTES, WELCOME_BYTES, MESSAGE_BYTES, PHRASE_BYTES) == (24, 8, 56, 33)
    assert WELCOME_BYTES + PHRASE_BYTES > ANSWER_BYTES, "a refusal is heard before a welcome is waited for"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Hello(Mode.FIRST), "766d6c70 03 02 00 00" + 16 * "00"),
        (Hello(Mode.JOIN, HANDLE), "766d6c70 03 02 01 00" + HANDLE.hex()),
        (Hello(Mode.PHRASE), "766d6c70 03 02 02 00" + 16 * "00"),
    ],
)
def test_a_hello_byte_by_byte(said: Hello, expected: str) -> None:
    assert said.encode() == bytes.fromhex(expected)
    assert decode_hello_untrusted(bytearray(said.encode())) == said


def test_a_welcome_byte_by_byte() -> None:
    assert encode_welcome() == bytes([*b"vmlp", VERSION, Verdict.ACCEPTED, 0, 0])


@pytest.mark.parametrize("said", HELLOS)
def test_how_long_the_message_is(said: Hello) -> None:
    assert said.message_bytes() == (33 if said.mode is Mode.PHRASE else 56)


@pytest.mark.parametrize(
    ("place", "value"),
    [(6, 3), (6, 255), (7, 1), (8, 1), (23, 255)],
    ids=["mode 3", "mode 255", "reserved", "a handle without need", "the end of one"],
)
def test_values_that_cannot_be(place: int, value: int) -> None:
    data = bytearray(Hello(Mode.FIRST).encode())
    data[place] = value
    with pytest.raises(FrameError, match="a hello with values that cannot be"):
        decode_hello_untrusted(data)


def test_who_joins_says_what() -> None:
    with pytest.raises(FrameError, match="cannot be"):
        decode_hello_untrusted(Hello(Mode.JOIN).encode())
    with pytest.raises(FrameError, match="cannot be"):
        decode_hello_untrusted(Hello(Mode.PHRASE, HANDLE).encode())


@pytest.mark.parametrize("opening", [Opening.GREETING, Opening.CALL])
@pytest.mark.parametrize("suites", [1, 2, 3])
def test_an_offer(suites: int, opening: Opening) -> None:
    payload = encode_offer(suites, opening)
    assert payload == bytes([suites, opening, 0, 0, 0, 0, 0, 0])
    assert decode_offer(payload) == (suites, opening)


@pytest.mark.parametrize("payload", [b"", bytes(7), bytes(9), bytes([3, 2]) + bytes(6), bytes([3, 255]) + bytes(6)])
def test_an_offer_that_cannot_be(payload: bytes) -> None:
    with pytest.raises(FrameError, match="offers what cannot be"):
        decode_offer(payload)


@pytest.mark.parametrize(("suite", "cipher"), SUITES.items())
def test_a_choice(suite: int, cipher: str) -> None:
    assert encode_choice(suite) == bytes([suite]) + bytes(7)
    assert decode_choice(encode_choice(suite)) == cipher


@pytest.mark.parametrize("payload", [b"", bytes([1]), bytes(8), bytes([3]) + bytes(7), bytes([1]) + bytes(8)])
def test_a_choice_that_cannot_be(payload: bytes) -> None:
    with pytest.raises(FrameError, match="a suite that cannot be"):
        decode_choice(payload)


@pytest.mark.parametrize(
    ("offered", "ours", "cipher"),
    [
        (3, 3, "AESGCM"),
        (3, 2, "ChaChaPoly"),
        (2, 3, "ChaChaPoly"),
        (2, 2, "ChaChaPoly"),
        (1, 2, "ChaChaPoly"),
        (0, 3, "ChaChaPoly"),
        (252, 3, "ChaChaPoly"),
        (255, 3, "AESGCM"),
    ],
)
def test_what_suits_both_is_chosen_else_what_is_fast_everywhere(offered: int, ours: int, cipher: str) -> None:
    """Bits of which we know nothing are for versions to come."""
    assert SUITES[choose_suite(offered, ours)] == cipher


def test_the_handshake_itself_has_one_cipher() -> None:
    assert hello.HANDSHAKE_CIPHER == "ChaChaPoly"
