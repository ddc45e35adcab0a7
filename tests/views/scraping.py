"""A server of metrics for a test, and somebody who asks it."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from viamillipede.config import Address
from viamillipede.views.metrics import MetricsServer
from viamillipede.views.snapshot import Snapshot

HOST = "127.0.0.1"


@contextmanager
def serving(*snapshots: Snapshot, host: str = HOST, **others: Any) -> Iterator[MetricsServer]:
    """A server of these snapshots on a port that the kernel has chosen."""
    server = MetricsServer(Address(host, 0), lambda: snapshots, **others)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(server: MetricsServer, path: str = "/metrics", method: str = "GET", host: str = HOST) -> tuple[int, str]:
    """Status and text of an answer."""
    connection = HTTPConnection(host, server.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
