"""The server of metrics over real sockets: one page, whoever asks, and nothing left behind."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.views.scraping import HOST, ask, serving
from tests.views.snapshots import many_legs, tx_snapshot
from viamillipede.config import Address
from viamillipede.errors import UsageError
from viamillipede.views import metrics
from viamillipede.views.metrics import REQUESTS_MAX, MetricsServer
from viamillipede.views.snapshot import Snapshot


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metricsx", "/favicon.ico", "/../metrics"])
def test_there_is_no_other_page(path: str) -> None:
    with serving(tx_snapshot()) as server:
        assert ask(server, path) == (404, "404 Not Found: there is only /metrics\n")


def test_one_metric_can_be_asked_for() -> None:
    with serving(tx_snapshot()) as server:
        text = ask(server, "/metrics?name[]=viamillipede_legs")[1]
    assert [line.split("{")[0] for line in text.splitlines() if line[0] != "#"] == ["viamillipede_legs"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_there_is_no_other_method(method: str) -> None:
    with serving(tx_snapshot()) as server:
        assert ask(server, method=method)[0] == 501


def test_a_mistake_of_ours_is_told_to_who_asks(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> tuple[Snapshot, ...]:
        raise RuntimeError("no\nsnapshot")

    server = MetricsServer(Address(HOST, 0), fail)
    server.start()
    try:
        answers = [ask(server), ask(server)]
    finally:
        server.stop()
    assert answers == [(500, "500 Internal Server Error: RuntimeError: no\nsnapshot\n")] * 2
    assert capfd.readouterr() == ("", "")


def test_who_goes_away_or_talks_nonsense_is_passed_over_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(tx_snapshot(legs=many_legs(1000))) as server:
        for said in (b"", b"\x00\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"GET /metrics HTTP/1.0\r\n\r\n"):
            with socket.create_connection((HOST, server.port)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset
                sock.sendall(said)
        assert ask(server)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_one_who_says_nothing_is_in_nobodys_way_and_ends_with_the_server() -> None:
    before = set(threading.enumerate())
    with serving(tx_snapshot()) as server, socket.create_connection((HOST, server.port), timeout=10) as silent:
        assert ask(server)[0] == 200
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < metrics.REQUEST_S / 2
        assert silent.recv(1) == b""
        assert set(threading.enumerate()) == before


def test_one_who_says_nothing_for_long_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_S", 0.05)
    with serving(tx_snapshot()) as server, socket.create_connection((HOST, server.port), timeout=10) as silent:
        assert silent.recv(1) == b""


def test_more_than_a_few_at_a_time_are_turned_away() -> None:
    with serving(tx_snapshot()) as server:
        socks = [socket.create_connection((HOST, server.port), timeout=10) for _ in range(REQUESTS_MAX)]
        with socket.create_connection((HOST, server.port), timeout=10) as surplus:
            assert surplus.recv(1) == b""
        for sock in socks:
            sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.0 200"
            sock.close()


def test_a_port_that_is_taken() -> None:
    with serving(tx_snapshot()) as server:
        second = MetricsServer(Address(HOST, server.port), tuple)
        with pytest.raises(OSError, match="in use"):
            second.start()
        assert second.port == 0
        second.stop()
        assert ask(server)[0] == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(OSError), serving(host=host):
        pass


def test_ipv6() -> None:
    with serving(tx_snapshot(), host="::1") as server:
        assert ask(server, host="::1")[0] == 200


def test_the_name_service_is_not_asked_for_our_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> str:
        raise AssertionError("a name service that does not answer would hold the start up")

    monkeypatch.setattr(socket, "getfqdn", refuse)
    with serving(tx_snapshot()) as server:
        assert ask(server)[0] == 200


def test_after_its_end_there_is_no_thread_and_no_socket() -> None:
    before = set(threading.enumerate())
    with serving(tx_snapshot()) as server:
        port = server.port
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon and port > 0
    server.stop()
    assert set(threading.enumerate()) == before and server.port == 0
    with pytest.raises(ConnectionRefusedError), socket.create_connection((HOST, port)):
        pass


def test_without_the_library_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UsageError, match="prometheus-client is missing; install it"), serving():
        pass


def test_who_does_not_ask_for_metrics_does_not_load_the_library() -> None:
    code = "import sys, viamillipede.views.metrics; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
