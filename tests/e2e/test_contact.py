"""Getting together: who starts first, addresses that do not work, checkphrases, versions, families, strangers."""

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.e2e.helpers import LOOPBACK, Side, Stage, eventually, read_all, read_exactly, some_bytes, whole
from viamillipede.protocol.wire import (
    ANSWER_BYTES,
    GREETING_BYTES,
    VERSION,
    Answer,
    Greeting,
    Verdict,
    decode_answer_untrusted,
)

NOBODY = "127.0.0.3"  # on loopback, and nobody listens there


def reserve(stage: Stage) -> int:
    """A port that refuses until rx listens on it: bound, so that nobody else gets it, but not listening."""
    sock = stage.hold(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LOOPBACK, 0))
    return int(sock.getsockname()[1])


def deaf_server(stage: Stage) -> int:
    """A port whose connections are made by the kernel, and nobody says anything on them."""
    return int(stage.hold(socket.create_server((LOOPBACK, 0), backlog=64)).getsockname()[1])


def full_server(stage: Stage) -> int:
    """A port that does not answer: its backlog is full, so the kernel drops what asks for a connection."""
    server = stage.hold(socket.create_server((LOOPBACK, 0), backlog=0))
    for _ in range(8):
        sock = stage.hold(socket.socket())
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
    return int(server.getsockname()[1])


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that answers every greeting like this and waits for the end; its port."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def serve() -> None:
            while True:
                sock, _ = server.accept()
                with sock:
                    if not sock.recv(GREETING_BYTES):
                        return
                    sock.sendall(answer)
                    sock.settimeout(30)
                    with suppress(ConnectionResetError):
                        sock.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            socket.create_connection(server.getsockname()).close()  # says nothing: that ends it
            thread.join(60)


# ---- who starts first --------------------------------------------------------------------------------------


def test_rx_starts_after_tx(stage: Stage) -> None:
    port = reserve(stage)
    tx = stage.tx(port, "verbose", 3)
    tx.feed([b"patience"])
    tx.hear(r"refused", times=3)
    rx = stage.rx(port=port)
    assert read_all(rx.output) == b"patience"
    tx.ends(0)
    rx.ends(0)
    assert "not reached" not in tx.closing_line()


def test_what_keeps_tx_waiting_is_said_once(stage: Stage) -> None:
    tx = stage.tx_words("tx", "nobody.invalid", 9, "wait", "4s")
    said = tx.ends(3)
    assert re.search(r"^viamillipede tx: waiting up to 4 s for a receiver: nobody\.invalid:9: cannot resolve: ", said)
    assert said.count("cannot resolve") == 2, "and in the last line"


def test_nobody_there_within_wait(stage: Stage) -> None:
    port = reserve(stage)
    tx = stage.tx_words("tx", LOOPBACK, port, "tx", "nobody.invalid", 9, "wait", "2s")
    tx.feed([b"in vain"])
    said = tx.ends(3)
    last = said.splitlines()[-1]
    assert last.startswith("viamillipede tx: no contact: ")
    assert not re.search(r" in \S+ s, |not reached", said), "where there was nobody there is nothing to sum up"
    assert "waiting up to" not in said, "it has given up by then"
    assert re.search(rf"127\.0\.0\.1:{port}: .*refused", last), "the reason for the first address"
    assert re.search(r"nobody\.invalid:9: cannot resolve", last), "and for the second"


def test_rx_may_wait_for_a_limited_time(stage: Stage) -> None:
    assert "viamillipede rx: no transmitter came within 1 s" in stage.rx("wait", "1s").ends(9)


def test_a_port_in_use(stage: Stage) -> None:
    rx = stage.rx()
    again = Side("rx", ["rx", rx.port], None, None, None, [])
    try:
        assert f"cannot listen on port {rx.port}: Address already in use" in again.ends(3)
    finally:
        again.release()


# ---- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dead_addresses_are_named_and_the_others_carry_the_stream(stage: Stage) -> None:
    """One refuses, one cannot be resolved, one does not answer, one accepts and says nothing; two work."""
    rx = stage.rx()
    refusing, full, deaf = reserve(stage), full_server(stage), deaf_server(stage)
    dead = [(LOOPBACK, refusing), ("nobody.invalid", 9), (LOOPBACK, full), (LOOPBACK, deaf)]
    words: list[object] = ["tx", LOOPBACK, rx.port]
    for host, port in [*dead, ("127.0.0.2", rx.port)]:
        words += ["tx", host, port]
    tx = stage.tx_words(*words, "threads", 8, "verbose", 3)
    data = some_bytes(10_000)
    tx.write(data)
    assert read_exactly(rx.output, len(data)) == data
    tx.hear(rf"127\.0\.0\.1:{full}: no answer")
    tx.hear(rf"127\.0\.0\.1:{deaf}: connected, but no answer")
    tx.write(data)
    tx.end_input()
    assert read_all(rx.output) == data
    tx.ends(0)
    rx.ends(0)
    line = tx.closing_line().partition("; not reached: ")[2]
    for host, port in dead:
        assert f"{host}:{port}: " in line, line
    assert f":{rx.port}: " not in line
    assert tx.closing("legs?") >= 4, "those at home at a dead address dial one that works"


@pytest.mark.slow
def test_a_dead_address_is_tried_again(stage: Stage) -> None:
    rx = stage.rx()
    gate = stage.hold(socket.socket())
    gate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    gate.bind((LOOPBACK, 0))
    tx = stage.tx_words("tx", LOOPBACK, rx.port, "tx", LOOPBACK, gate.getsockname()[1], "threads", 2, "verbose", 3)
    tx.hear(rf":{gate.getsockname()[1]}: .*refused", times=2)
    gate.listen()
    theirs, _ = gate.accept()
    theirs.settimeout(30)
    with theirs:
        assert len(theirs.recv(GREETING_BYTES, socket.MSG_WAITALL)) == GREETING_BYTES
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)


def test_several_addresses_share_the_stream(stage: Stage) -> None:
    rx = stage.rx("verbose", 3)
    tx = stage.tx_words("tx", LOOPBACK, rx.port, "tx", "127.0.0.2", rx.port, "threads", 4, "verbose", 3)
    for leg in range(4):
        tx.hear(rf"leg {leg} to 127\.0\.0\.{leg % 2 + 1}:{rx.port}: up")
    whole(rx, tx, some_bytes(10_000_000))
    assert tx.closing("legs") == rx.closing("legs") == 4


def test_no_leg_is_tied_to_the_address_that_comes_first(stage: Stage) -> None:
    """The first address refuses from the beginning; the stream does not wait for it."""
    port = reserve(stage)
    rx = stage.rx()
    tx = stage.tx_words("tx", NOBODY, port, "tx", LOOPBACK, rx.port)
    whole(rx, tx, some_bytes(1_000_000))
    assert re.search(rf"not reached: {re.escape(NOBODY)}:{port}: .*refused", tx.closing_line())


def has_ipv6() -> bool:
    """Whether loopback knows IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost"])
def test_rx_listens_on_ipv6(stage: Stage, host: str) -> None:
    rx = stage.rx()
    whole(rx, stage.tx(rx, host=host), some_bytes(1_000_000))


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_ipv4_and_ipv6_carry_one_stream(stage: Stage) -> None:
    rx = stage.rx("verbose", 3)
    tx = stage.tx_words("tx", LOOPBACK, rx.port, "tx", "::1", rx.port, "threads", 2)
    rx.hear(r"leg 0 from 127\.0\.0\.1:\d+: up")
    rx.hear(r"leg 1 from \[::1\]:\d+: up")
    whole(rx, tx, some_bytes(1_000_000))


@pytest.mark.parametrize(
    "address", [LOOPBACK, pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))]
)
def test_rx_bound_to_one_address(stage: Stage, address: str) -> None:
    rx = stage.rx("bind", address)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK if address == "::1" else "127.0.0.2", rx.port), 30)
    whole(rx, stage.tx(rx, host=address), b"bound")


def test_tx_bound_to_a_source_address(stage: Stage) -> None:
    rx = stage.rx("verbose", 3)
    tx = stage.tx(rx, "bind", "127.0.0.2", "threads", 2)
    rx.hear(r"leg 0 from 127\.0\.0\.2:\d+: up")
    rx.hear(r"leg 1 from 127\.0\.0\.2:\d+: up")
    whole(rx, tx, b"from the second")


def test_an_address_that_is_not_ours_cannot_be_bound(stage: Stage) -> None:
    rx = Side("rx", ["rx", 0, "bind", "192.0.2.1"], None, None, None, [])
    try:
        assert "cannot listen on 192.0.2.1:0: Cannot assign requested address" in rx.ends(3)
    finally:
        rx.release()
    tx = stage.tx(reserve(stage), "bind", "192.0.2.1", "wait", "1s")
    assert "Cannot assign requested address" in tx.ends(3)


# ---- checkphrase and version -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("checkphrase", "abce"), ()], ids=["other", "none"])
def test_another_checkphrase_is_refused_and_the_right_one_served(stage: Stage, words: tuple[str, ...]) -> None:
    rx = stage.rx("checkphrase", "abcd")
    wrong = stage.tx(rx, *words)
    assert "the receiver has another checkphrase" in wrong.ends(4)
    right = stage.tx(rx, "checkphrase", "abcd")
    whole(rx, right, b"with the right phrase")
    assert rx.closing("connections? refused") >= 1


def test_a_receiver_of_another_version(stage: Stage) -> None:
    with answering(b"vmlp" + bytes([VERSION + 1]) + bytes(100)) as port:
        tx = stage.tx(port)
        assert f"the receiver speaks version {VERSION + 1} of the protocol, we {VERSION}" in tx.ends(4)


def test_a_receiver_that_finds_our_version_wrong(stage: Stage) -> None:
    with answering(Answer(Verdict.VERSION).encode()) as port:
        assert "another version" in stage.tx(port).ends(4)


def test_a_receiver_that_is_something_else(stage: Stage) -> None:
    with answering(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        tx = stage.tx(port, "wait", "1s")
        assert "no viamillipede receiver" in tx.ends(3)


# ---- strangers ---------------------------------------------------------------------------------------------


def greeting_of(session: bytes) -> bytes:
    """A good greeting of another session."""
    return Greeting(session, 0, bytes(8), bytes(4), 0, 1 << 26, 1 << 20).encode()


STRANGERS = {
    "port scan": (b"", None),
    "half a greeting, then closed": (greeting_of(b"s" * 16)[:30], None),
    "random bytes": (some_bytes(4096), None),
    "one byte, then closed": (b"v", None),
    "damaged greeting": (greeting_of(b"s" * 16)[:-1] + b"!", None),
    "another version": (b"vmlp" + bytes([VERSION + 1]) + bytes(200), Verdict.VERSION),
    "another session": (greeting_of(b"s" * 16), Verdict.BUSY),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_is_refused_counted_and_logged_once(stage: Stage, kind: str) -> None:
    said, verdict = STRANGERS[kind]
    rx = stage.rx()
    tx = stage.tx(rx)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    for _ in range(3):
        with socket.create_connection((LOOPBACK, rx.port), 30) as sock:
            sock.sendall(said)
            if verdict is None:
                if len(said) < GREETING_BYTES:
                    with contextlib.suppress(OSError):  # it may have been reset by now
                        sock.shutdown(socket.SHUT_WR)
                assert ends_without_a_word(sock)
            else:
                answer = sock.recv(ANSWER_BYTES, socket.MSG_WAITALL)
                assert decode_answer_untrusted(answer).verdict is verdict
    whole(rx, tx, some_bytes(2_000_000))
    assert rx.said.count("refused a connection from ") == 1 and rx.closing("connections refused") == 3
    assert tx.closing("restart") == rx.closing("restart") == 0


def ends_without_a_word(sock: socket.socket) -> bool:
    """Whether the other end closes or resets, and says nothing before."""
    try:
        return not sock.recv(1)
    except ConnectionResetError:
        return True


def test_an_http_request_is_refused(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx)
    browser = http.client.HTTPConnection(LOOPBACK, rx.port, timeout=30)
    with pytest.raises((http.client.HTTPException, OSError)):
        browser.request("GET", "/")
        browser.getresponse()
    browser.close()
    whole(rx, tx, some_bytes(2_000_000))
    assert rx.said.count("refused a connection from ") == 1 and rx.closing("connection refused") == 1


def test_strangers_before_the_first_contact(stage: Stage) -> None:
    rx = stage.rx()
    for said, _ in STRANGERS.values():
        if said != greeting_of(b"s" * 16):  # that one would be welcome
            with socket.create_connection((LOOPBACK, rx.port), 30) as sock:
                sock.sendall(said)
    whole(rx, stage.tx(rx), b"all the same")
    assert rx.said.count("refused a connection from ") == 1 and rx.closing("connections refused") == len(STRANGERS) - 1


def test_another_tx_is_told_that_rx_is_busy(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx)
    tx.write(b"first")
    assert read_exactly(rx.output, 5) == b"first"
    second = stage.tx(rx, "wait", "1s")
    second.feed([b"second"])
    assert "the receiver is busy with another stream" in second.ends(3)
    whole(rx, tx, b", and only")
    assert rx.said.count("refused a connection from ") == 1 and rx.closing("connections? refused") >= 1


@pytest.mark.slow
def test_500_strangers_at_once_and_greetings_that_never_end(stage: Stage) -> None:
    """They stay until rx has had enough of them; the stream goes on all the time, and the descriptors come back."""
    rx = stage.rx()
    tx = stage.tx(rx, "threads", 4)
    data = some_bytes(1_000_000)
    tx.write(data)
    assert read_exactly(rx.output, len(data)) == data
    eventually(lambda: rx.descriptors() >= 4, "the legs are up")
    before = rx.descriptors()
    kinds = [b"", greeting_of(b"s" * 16)[:71], b"vmlp", b"GET / HTTP/1.1\r\n\r\n", greeting_of(b"t" * 16)]
    crowd = [stage.hold(socket.create_connection((LOOPBACK, rx.port), 30)) for _ in range(500)]
    for i, sock in enumerate(crowd):
        sock.sendall(kinds[i % len(kinds)])
    tx.write(data)
    assert read_exactly(rx.output, len(data)) == data
    for sock in crowd:
        sock.settimeout(60)
        ends_without_a_word(sock)
    eventually(lambda: rx.descriptors() <= before + 4, "all are gone")
    whole(rx, tx, data)
    assert rx.said.count("refused a connection from ") == 1 and rx.closing("connections refused") == 500
    assert tx.closing("restart") == rx.closing("restart") == 0
