"""A word on a port that is not reached, in time."""

import os
import socket
import threading

from viamillipede.ssh.hint import Hint, reaches

PATIENCE_S = 30
FAR_OFF_S = 3600.0


def test_whether_a_port_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        port = int(server.getsockname()[1])
        assert not reaches({port}), "who listens has reached nobody"
        with socket.create_connection(("127.0.0.1", port)):
            before = len(os.listdir("/dev/fd"))
            assert reaches({1, port}) and not reaches({1}) and not reaches(set())
            assert len(os.listdir("/dev/fd")) == before, "nothing is left open"
        assert not reaches({port}) and sock.fileno() >= 0
    left, right = socket.socketpair()
    with left, right:
        assert not reaches({1}), "they have no ports"


def test_a_port_that_is_not_reached() -> None:
    called = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with Hint({int(server.getsockname()[1])}, called.set, after_s=0.5) as hint:
            assert called.wait(PATIENCE_S)
        assert hint.said


def test_a_port_that_is_reached() -> None:
    """It looks no more then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)), Hint({port}, lambda: None, FAR_OFF_S) as hint:
            hint._thread.join(PATIENCE_S)
            assert not hint._thread.is_alive() and not hint.said


def test_a_transfer_that_is_over_soon() -> None:
    with Hint({1}, lambda: None, FAR_OFF_S) as hint:
        pass
    assert not hint.said and not hint._thread.is_alive()
