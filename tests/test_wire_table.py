"""viamillipede(7) against the program: layouts, kinds, verdicts, sizes, times, and the worked example byte by byte.

The tables are read from the mdoc source. A layout is checked twice: its sizes against the struct, and
each field by its name, since two fields of one size may change places without any size telling.
"""

import re
import shutil
import struct
import subprocess
from enum import IntEnum
from pathlib import Path

import pytest
import xxhash

from viamillipede import config
from viamillipede.aio import keys, last_word, rx_leg, tx
from viamillipede.errors import FrameError
from viamillipede.protocol import attempts, hedging, hello, sealing, tx_leg, tx_session, waits, wire
from viamillipede.protocol.control import ControlDecoder
from viamillipede.protocol.digest import FEATURE_OF, StreamDigest
from viamillipede.protocol.hello import Hello, Mode
from viamillipede.protocol.waits import Wait
from viamillipede.protocol.wire import Ack, Answer, Call, Greeting, Kind, Opening, Verdict, Waiting

PAGE = Path(__file__).parent.parent / "man" / "viamillipede.7"
TEXT = PAGE.read_text(encoding="utf-8")
UNITS_US = {"ms": config.MS_US, "s": config.S_US, "m": 60 * config.S_US}
HASH_BYTES = 8
# Numbers of the command line and of the machine, which no peer needs.
NOT_OF_THE_WIRE = {
    "KIB", "MIB", "GIB", "MS_US", "S_US", "VERBOSE_DEFAULT", "VERBOSE_MAX", "INTERVAL_US_DEFAULT", "INTERVAL_US_MIN",
    "DIRECT_WAIT_US_DEFAULT", "SECRET_FILE_BYTES_MAX",
}  # fmt: skip


def section(title: str) -> str:
    """The source of one section or subsection, up to the next one."""
    parts = re.split(r"^\.S[hs] (.*)$", TEXT, flags=re.M)[1:]
    found = [body for name, body in zip(parts[::2], parts[1::2], strict=True) if name == title]
    assert len(found) == 1, title
    return found[0]


def rows(title: str, *columns: str) -> list[list[str]]:
    """The rows of the table with these columns in the section."""
    for source in re.findall(r"^\.Bl -column .*?\n(.*?)^\.El$", section(title), flags=re.M | re.S):
        head, *lines = (line.removeprefix(".It ").split(" Ta ") for line in source.splitlines())
        if head == [f"Em {name}" for name in columns]:
            assert lines and all(len(line) == len(columns) for line in lines)
            return lines
    raise AssertionError(f"no such table in {title}")


def layout(title: str) -> list[tuple[int, int, str]]:
    """(offset, bytes, name) of each field."""
    return [(int(o), int(n), name) for o, n, name, _ in rows(title, "offset", "bytes", "field", "meaning")]


def sizes_of(*parts: struct.Struct) -> list[int]:
    """The size of every field of the structs, in order."""
    letters = [letter for part in parts for letter in re.findall(r"\d*[a-zA-Z]", part.format)]
    return [struct.calcsize(f"!{letter}") for letter in letters]


def fields_of(data: bytes, title: str) -> dict[str, bytes]:
    """What the table says stands where; fields called reserved must be zero."""
    found = {}
    for offset, size, name in layout(title):
        if name == "reserved":
            assert not any(data[offset : offset + size])
        else:
            found[name] = data[offset : offset + size]
    return found


def example(title: str) -> bytes:
    """The bytes of a worked example; the offsets at the left must be right."""
    data = bytearray()
    lines = section(f"Example {title}").split(".Bd ")[1].split("\n.Ed")[0].splitlines()[1:]
    for line in lines:
        match = re.fullmatch(r" *(\d+)  ((?:[0-9a-f]{2} ?)+?)(?:  +\S.*)?", line)
        assert match is not None, line
        assert int(match[1]) == len(data), line
        data += bytes.fromhex(match[2])
    return bytes(data)


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


# Layouts. --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("title", "parts", "total"),
    [
        ("Greeting", (wire._GREETING, wire._HASH), wire.GREETING_BYTES),
        ("Call", (wire._CALL, wire._HASH), wire.CALL_BYTES),
        ("Answer", (wire._ANSWER, wire._HASH), wire.ANSWER_BYTES),
        ("Header", (wire._HEADER, wire._HASH), wire.HEADER_BYTES),
        ("Acknowledgement", (wire._ACK, wire._RANGE), wire._ACK.size + wire._RANGE.size),
    ],
)
def test_sizes_are_those_of_the_structs(title: str, parts: tuple[struct.Struct, ...], total: int) -> None:
    table = layout(title)
    assert [size for _, size, _ in table] == sizes_of(*parts)
    end = 0
    for offset, size, name in table:
        assert offset == end, name
        end += size
    assert end == total
    if title != "Acknowledgement":
        assert re.search(rf"^{total} bytes", section(title), flags=re.M)


def test_fields_of_a_greeting() -> None:
    session = bytes(range(1, 17))
    data = Greeting(session, 0x01020304, b"receiver", b"mill", 1, 0x1122334455667788, 0x99887, "db1").encode()
    assert fields_of(data, "Greeting") == {
        "magic": wire.MAGIC,
        "version": number(wire.VERSION, 1),
        "opening": number(Opening.GREETING, 1),
        "features": number(1, 2),
        "session": session,
        "receiver": b"receiver",
        "leg": number(0x01020304, 4),
        "checkphrase": b"mill",
        "window": number(0x1122334455667788, 8),
        "frame": number(0x99887, 8),
        "name": b"db1" + bytes(61),
        "hash": number(xxhash.xxh3_64_intdigest(data[:-HASH_BYTES], seed=0), HASH_BYTES),
    }


def test_fields_of_a_call() -> None:
    data = Call(b"receiver", 0x01020304, 0x11121314, 0x21222324, b"mill").encode()
    assert fields_of(data, "Call") == {
        "magic": wire.MAGIC,
        "version": number(wire.VERSION, 1),
        "opening": number(Opening.CALL, 1),
        "receiver": b"receiver",
        "leg": number(0x01020304, 4),
        "rank": number(0x11121314, 4),
        "ranks": number(0x21222324, 4),
        "checkphrase": b"mill",
        "hash": number(xxhash.xxh3_64_intdigest(data[:-HASH_BYTES], seed=0), HASH_BYTES),
    }


@pytest.mark.parametrize("opening", Opening)
def test_openings(opening: Opening) -> None:
    meaning = {row[2]: row[3] for row in rows(opening.name.title(), "offset", "bytes", "field", "meaning")}
    assert meaning["opening"] == str(opening.value)


def test_fields_of_an_answer() -> None:
    data = Answer(Verdict.BUSY, 1, b"receiver", 0x1122334455667788).encode()
    assert fields_of(data, "Answer") == {
        "magic": wire.MAGIC,
        "version": number(wire.VERSION, 1),
        "verdict": number(Verdict.BUSY, 1),
        "features": number(1, 2),
        "receiver": b"receiver",
        "window": number(0x1122334455667788, 8),
        "hash": number(xxhash.xxh3_64_intdigest(data[:-HASH_BYTES], seed=0), HASH_BYTES),
    }


def test_fields_of_a_header() -> None:
    data = wire.encode_header(Kind.DATA, 0x01020304, 0x1112131415161718, 0x2122232425262728, 0x3132333435363738)
    assert fields_of(data, "Header") == {
        "magic": wire.HEADER_MAGIC,
        "kind": number(Kind.DATA, 1),
        "length": number(0x01020304, 4),
        "seq": number(0x1112131415161718, 8),
        "offset": number(0x2122232425262728, 8),
        "payload_hash": number(0x3132333435363738, 8),
        "header_hash": number(xxhash.xxh3_64_intdigest(data[:-HASH_BYTES], seed=0), HASH_BYTES),
    }


def test_fields_of_an_acknowledgement() -> None:
    data = Ack(5, 6, Waiting.OUTPUT, 7, ((8, 9),), 10, 11).encode()
    assert fields_of(data[: wire.HEADER_BYTES], "Header")["seq"] == number(5, 8)
    assert fields_of(data[: wire.HEADER_BYTES], "Header")["offset"] == number(6, 8)
    assert fields_of(data[wire.HEADER_BYTES :], "Acknowledgement") == {
        "waiting": number(Waiting.OUTPUT, 8),
        "waiting_seq": number(7, 8),
        "output_us": number(10, 8),
        "core_us": number(11, 8),
        "start": number(8, 8),
        "end": number(9, 8),
    }


def test_fields_of_a_hello_and_a_welcome() -> None:
    handle = bytes(range(1, 17))
    assert fields_of(Hello(Mode.JOIN, handle).encode(), "Hello") == {
        "magic": wire.MAGIC,
        "version": number(wire.VERSION, 1),
        "opening": number(Opening.HELLO, 1),
        "mode": number(Mode.JOIN, 1),
        "handle": handle,
    }
    assert fields_of(hello.encode_welcome(), "Welcome") == {
        "magic": wire.MAGIC,
        "version": number(wire.VERSION, 1),
        "verdict": number(Verdict.ACCEPTED, 1),
    }
    for title, size in (("Hello", hello.HELLO_BYTES), ("Welcome", hello.WELCOME_BYTES)):
        assert sum(length for _, length, _ in layout(title)) == size
        assert re.search(rf"^{size} bytes and a message", section(title), flags=re.M)


def test_modes_suites_and_messages_of_a_hello() -> None:
    meaning = {row[2]: row[3] for row in rows("Hello", "offset", "bytes", "field", "meaning")}
    assert meaning["mode"] == "which secret: " + ", ".join(f"{mode.value} {mode.name}" for mode in Mode)
    payload = rows("Hello", "offset", "bytes", "of the payload", "meaning")
    assert [(int(offset), int(size)) for offset, size, *_ in payload] == [(0, 1), (1, 1), (2, 6)]
    assert hello.encode_offer(3, Opening.CALL) == bytes([3, Opening.CALL]).ljust(hello.PAYLOAD_BYTES, b"\0")
    assert payload[0][3] == "bits: 1 AES-256-GCM, 2 ChaCha20-Poly1305"
    assert payload[1][3].endswith("0 a greeting, 1 a call")
    assert list(hello.SUITES) == [1, 2] and f"that of SPAKE2, {hello.PHRASE_BYTES} bytes" in section("Hello")
    assert f"Noise_NNpsk0_25519_{hello.HANDSHAKE_CIPHER}_SHA256" in section("Hello")


@pytest.mark.parametrize(
    ("title", "magic"),
    [*((title, wire.MAGIC) for title in ("Hello", "Welcome", "Greeting", "Call")), ("Header", wire.HEADER_MAGIC)],
)
def test_magic_and_version(title: str, magic: bytes) -> None:
    meaning = {row[2]: row[3] for row in rows(title, "offset", "bytes", "field", "meaning")}
    assert meaning["magic"] == f"the characters {magic.decode()}: {magic.hex(' ')}"
    assert meaning.get("version", str(wire.VERSION)) == str(wire.VERSION)
    assert re.search(rf"^\.Nd wire format, version {wire.VERSION},", TEXT, flags=re.M)


# Numbers. --------------------------------------------------------------------------------------
def test_kinds() -> None:
    table = rows("Messages", "kind", "name", "from", "length", "seq", "offset")
    assert [(int(kind), name) for kind, name, *_ in table] == [(kind.value, kind.name) for kind in Kind]
    assert {name for _, name, side, *_ in table if side == "tx"} == {kind.name for kind in wire.FROM_TX}
    assert {name for _, name, side, *_ in table if side == "rx"} == {kind.name for kind in wire.FROM_RX}


@pytest.mark.parametrize("kind", list(Kind))
def test_lengths_of_kinds(kind: Kind) -> None:
    stated = {row[1]: row[3] for row in rows("Messages", "kind", "name", "from", "length", "seq", "offset")}[kind.name]
    possible = {
        "0": {0},
        "1 to FRAME_BYTES_MAX": {1, 2, config.FRAME_BYTES_MAX},
        "0 to REASON_BYTES_MAX": {0, 1, config.REASON_BYTES_MAX},
        "32 + 16 n, to 4128": {32, 48, 4128},
        "1 to DIGEST_BYTES_MAX": {1, 16, 32, config.DIGEST_BYTES_MAX},
        "48": {48},
        "2 ranks": {2, 4, 16, 32, 2 * config.RANKS_MAX},
    }[stated]
    impossible = {0, 1, 15, 17, 47, 49, 4129, 4144, config.REASON_BYTES_MAX + 1, config.FRAME_BYTES_MAX + 1}
    if stated.startswith("1 to"):
        impossible = {0, config.FRAME_BYTES_MAX + 1} | ({config.DIGEST_BYTES_MAX + 1} if "DIGEST" in stated else set())
    elif stated.startswith("0 to"):
        impossible = {config.REASON_BYTES_MAX + 1}
    for length in possible:
        wire.decode_header_untrusted(wire.encode_header(kind, length, 0, 0, 0), frozenset(Kind))
    for length in impossible - possible:
        with pytest.raises(FrameError):
            wire.decode_header_untrusted(wire.encode_header(kind, length, 0, 0, 0), frozenset(Kind))


def test_verdicts() -> None:
    table = rows("Verdicts", "number", "verdict", "meaning")
    assert [(int(row[0]), row[1]) for row in table] == [(verdict.value, verdict.name) for verdict in Verdict]


def test_features_and_waiting() -> None:
    features = {name.removeprefix("FEATURE_"): value for name, value in vars(wire).items() if name[:8] == "FEATURE_"}
    assert {row[1]: int(row[0]) for row in rows("Features", "value", "feature", "meaning")} == features
    assert sum(features.values()) == wire.FEATURES_KNOWN
    meaning = {row[2]: row[3] for row in rows("Acknowledgement", "offset", "bytes", "field", "meaning")}
    waiting = ", ".join(f"{each.value} {each.name}" for each in Waiting)
    assert meaning["waiting"] == f"what rx waits for: {waiting}"


def constants() -> dict[str, int]:
    """Every number that the page may name, by its name in the program."""
    modules = (wire, tx_session, tx_leg, hedging, waits, rx_leg, tx, last_word, sealing, attempts, keys, config)
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and type(value) is int and not isinstance(value, IntEnum)
    }


def numbers() -> dict[str, int]:
    """Every number that the page states, by name; times in microseconds."""
    stated = {name: int(value) for name, value, _ in rows("NUMBERS", "name", "value", "meaning")}
    for name, value, _ in rows("NUMBERS", "name", "time", "meaning"):
        count, unit = value.split()
        stated[name] = int(count) * UNITS_US[unit]
    return stated


def test_numbers_are_those_of_the_program() -> None:
    known = constants()
    assert numbers() == {name: known.get(name) for name in numbers()}


def test_no_number_is_left_out() -> None:
    limits = {name for name, value in vars(config).items() if name.isupper() and type(value) is int}
    assert limits - NOT_OF_THE_WIRE - set(numbers()) == set(), "say in NUMBERS what a peer's author must know of them"
    named = set(re.findall(r"\b(?!VIAMILLIPEDE_)[A-Z]+(?:_[A-Z]+)+\b", TEXT))
    assert named - {"TCP_NOTSENT_LOWAT", "TCP_USER_TIMEOUT"} == set(numbers())


# The worked example. ---------------------------------------------------------------------------
PAYLOAD = b"hello\n"


def test_example_of_a_greeting() -> None:
    session = bytes(range(16, 32))
    greeting = Greeting(session, 3, bytes(8), b"mill", wire.FEATURE_CHECKSUM, 64 << 20, 1 << 20, "db1")
    assert example("greeting") == greeting.encode()
    assert wire.decode_greeting_untrusted(example("greeting")) == greeting


def test_example_of_an_answer() -> None:
    features = wire.FEATURE_CHECKSUM | wire.FEATURE_XXH3
    answer = Answer(Verdict.ACCEPTED, features, bytes(range(0xA0, 0xA8)), 32 << 20)
    assert example("answer") == answer.encode()
    assert wire.decode_answer_untrusted(example("answer")) == answer


def test_example_of_a_call() -> None:
    call = Call(bytes(range(0xA0, 0xA8)), 3, 1, 2, b"mill")
    assert example("call") == call.encode()
    assert wire.decode_call_untrusted(example("call")) == call


def test_example_of_a_wish_for_legs() -> None:
    assert example("LEGS") == wire.encode_legs(1, True, [4, 4])
    ((_, payload),) = ControlDecoder(wire.FROM_TX).feed_untrusted(example("LEGS"))
    assert wire.decode_legs_untrusted(payload) == [4, 4]


def test_examples_of_messages() -> None:
    header = wire.encode_header(Kind.DATA, len(PAYLOAD), 0, 0, xxhash.xxh3_64_intdigest(PAYLOAD, seed=0))
    assert example("DATA") == header + PAYLOAD
    assert example("END") == wire.encode_header(Kind.END, 0, 1, len(PAYLOAD), 0)
    assert example("DONE") == wire.encode_control(Kind.DONE, offset=len(PAYLOAD))
    ack = Ack(1, len(PAYLOAD), Waiting.FRAME, 1, ((3, 5),), 250_000, 1500)
    assert example("ACK") == ack.encode()
    ((decoded, payload),) = ControlDecoder().feed_untrusted(example("ACK"))
    assert wire.decode_ack_untrusted(decoded, payload) == ack


def test_examples_of_digests() -> None:
    digest = StreamDigest(FEATURE_OF["xxh3"])
    digest.update(memoryview(PAYLOAD))
    assert example("DIGEST") == wire.encode_control(Kind.DIGEST, 0, len(PAYLOAD), digest.value())
    assert example("SUM") == wire.encode_control(Kind.SUM, payload=digest.value())
    for value, name, meaning in rows("Features", "value", "feature", "meaning"):
        if name.lower() in FEATURE_OF:
            assert f" {len(StreamDigest(int(value)).value())} bytes" in meaning


def test_example_of_where_the_time_goes() -> None:
    waits_us = [3_000_000, 90_000, 0, 0, 400_000, 0]
    assert example("WAITS") == wire.encode_waits(waits_us)
    ((_, payload),) = ControlDecoder(wire.FROM_TX).feed_untrusted(example("WAITS"))
    assert wire.decode_waits(payload) == tuple(waits_us)


def test_the_order_of_waits() -> None:
    stated = section("Messages").split(".It WAITS")[1].split(".It ACK")[0].replace("\n", " ")
    named = ["source", "network", "core of tx", "core of rx", "sink", "limit"]
    assert len(named) == len(Wait) and re.search(".*".join(named), stated)
    assert [waits.NAMES[wait] for wait in Wait] == [
        "the source", "the network", "a core of tx", "a core of rx", "the sink", "the limit that was set",
    ]  # fmt: skip
    theory = section("Where the time goes")
    assert f"used {waits.CORE_BUSY * 100:.0f} % of a core" in theory and waits.CLEAR == 0.1


def test_hash_of_nothing() -> None:
    assert f"an empty payload is {xxhash.xxh3_64_hexdigest(b'', seed=0)}" in section("Header")


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_nothing() -> None:
    command = ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
