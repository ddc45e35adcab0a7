"""The handshake: what is published of it, and what it must refuse."""

import json
from pathlib import Path
from typing import Any

import pytest

from viamillipede.protocol.noise import MESSAGE_BYTES_MIN, CipherState, Handshake, NotSealedForUs
from viamillipede.protocol.wire import TAG_BYTES

VECTORS = json.loads(Path(__file__).with_name("noise_vectors.json").read_text())["vectors"]
PSK, E1, E2 = (bytes([number]) * 32 for number in (1, 2, 3))


def sealed(state: CipherState, data: bytes) -> bytes:
    out = bytearray(len(data) + TAG_BYTES)
    state.seal_into(data, memoryview(out))
    return bytes(out)


def opened(state: CipherState, data: bytes) -> bytes:
    out = bytearray(len(data) - TAG_BYTES)
    state.open_into(data, memoryview(out))
    return bytes(out)


def sides(psk: bytes = PSK, prologue: bytes = b"", cipher: str = "ChaChaPoly") -> tuple[Handshake, Handshake]:
    return Handshake(True, cipher, PSK, E1, b""), Handshake(False, cipher, psk, E2, prologue)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["protocol_name"] for vector in VECTORS])
def test_published_vectors(vector: dict[str, Any]) -> None:
    """Every message of both sides, byte by byte, and the hash of the handshake."""
    values = {
        name: bytes.fromhex(text) for name, text in vector.items() if isinstance(text, str) and name[:5] != "proto"
    }
    cipher = vector["protocol_name"].split("_")[3]
    first = Handshake(
        True, cipher, bytes.fromhex(vector["init_psks"][0]), values["init_ephemeral"], values["init_prologue"]
    )
    second = Handshake(
        False, cipher, bytes.fromhex(vector["resp_psks"][0]), values["resp_ephemeral"], values["resp_prologue"]
    )
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    assert len(messages) > 2, "messages after the handshake too"
    for (payload, ciphertext), writer, reader in zip(messages[:2], (first, second), (second, first), strict=True):
        assert writer.write(payload) == ciphertext
        assert reader.read(ciphertext) == payload
    assert first.hash == second.hash == values["handshake_hash"]
    (out, back, more), (there, answers, same) = first.split(cipher), second.split(cipher)
    assert more == same and len(more) == 32
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        writes, reads = (out, answers) if number % 2 == 0 else (there, back)
        assert sealed(writes, payload) == ciphertext and opened(reads, ciphertext) == payload


def test_another_key_is_noticed_in_the_first_message() -> None:
    first, second = sides(psk=bytes(32))
    with pytest.raises(NotSealedForUs):
        second.read(first.write())


def test_another_prologue_is_noticed() -> None:
    first, second = sides(prologue=b"join")
    with pytest.raises(NotSealedForUs):
        second.read(first.write())


def test_an_answer_of_somebody_without_the_key_is_noticed() -> None:
    first, second = sides()
    message = first.write()
    second.read(message)
    impostor = Handshake(False, "ChaChaPoly", bytes(32), E2, b"")
    with pytest.raises(NotSealedForUs):
        impostor.read(message)
    with pytest.raises(NotSealedForUs):
        first.read(impostor.write())


@pytest.mark.parametrize("position", range(MESSAGE_BYTES_MIN))
def test_a_changed_bit_is_noticed(position: int) -> None:
    first, second = sides()
    message = bytearray(first.write())
    message[position] ^= 1
    if position == 31:
        message[position] ^= 0x81  # X25519 does not look at the highest bit: the hash does
    with pytest.raises(NotSealedForUs):
        second.read(message)


def test_a_reflected_message_is_noticed() -> None:
    first, _ = sides()
    message = first.write()
    with pytest.raises(NotSealedForUs):
        first.read(message)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)], ids=["zero", "one"])
def test_keys_of_low_order_are_refused(point: bytes) -> None:
    """They would make the shared secret one that everybody knows."""
    first, second = sides()
    second.read(first.write())
    answer = second.write()
    with pytest.raises(NotSealedForUs):
        first.read(point + answer[32:])


def test_fresh_ephemeral_keys_make_fresh_secrets() -> None:
    found = set()
    for ephemeral in (E1, E2):
        first, second = Handshake(True, "ChaChaPoly", PSK, ephemeral, b""), sides()[1]
        second.read(first.write())
        first.read(second.write())
        found.add(first.split("AESGCM")[2])
        assert first.split("AESGCM")[2] == second.split("AESGCM")[2]
    assert len(found) == 2


def test_a_new_key_opens_what_was_sealed_with_it_alone() -> None:
    ours, theirs = CipherState("AESGCM", PSK), CipherState("AESGCM", PSK)
    ours.rekey()
    message = sealed(ours, b"x")
    with pytest.raises(NotSealedForUs):
        opened(CipherState("AESGCM", PSK), message)
    theirs.rekey()
    assert opened(theirs, message) == b"x"


def test_nothing_shows_a_secret() -> None:
    first, second = sides()
    second.read(first.write())
    first.read(second.write())
    ours, theirs, _ = first.split("AESGCM")
    for thing in (first, second, ours, theirs):
        assert "bytes" not in repr(thing) and "\\x" not in repr(thing)
