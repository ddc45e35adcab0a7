"""Figures for Prometheus, on http://ADDRESS/metrics, as long as the program lives.

A thread answers from the latest snapshots, which nothing changes any more: the stream never waits for who asks.
The official client library does the formats. By itself it would answer on every path; here there is only /metrics.
Sizes are bytes, durations seconds, shares parts of 1. What is not known has no sample.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Literal

from viamillipede import __version__
from viamillipede.config import LEGS_MAX, S_US, Address
from viamillipede.errors import UsageError
from viamillipede.views.snapshot import Leg, Path, Snapshot

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

REQUESTS_MAX = 16  # answered at a time; who comes then is turned away
REQUEST_S = 5  # who says nothing for so long is turned away
PATHS_MAX = LEGS_MAX  # where others come from is up to them; no more than have legs
STREAM_LABELS = ("session", "name")  # of every metric that is about one stream

Values = Iterable[tuple[tuple[str, ...], float]]  # of the labels, in their order; and of the sample


@dataclass(frozen=True, slots=True)
class Metric:
    """What is told of each stream: `values` gives its samples, with values for `labels` each."""

    name: str
    kind: Literal["counter", "gauge", "info"]
    help: str
    labels: tuple[str, ...]
    values: Callable[[Snapshot], Values]


def _of_stream(name: str, text: str, value: Callable[[Snapshot], float | None]) -> Metric:
    def values(snapshot: Snapshot) -> Values:
        return _known((), value(snapshot))

    return Metric(name, _kind(name), text, (), values)


def _of_paths(name: str, text: str, value: Callable[[Path], float | None]) -> Metric:
    def values(snapshot: Snapshot) -> Values:
        for rank, path in enumerate(islice(snapshot.paths, PATHS_MAX)):
            yield from _known((str(rank),), value(path))

    return Metric(name, _kind(name), text, ("path",), values)


def _of_legs(name: str, text: str, value: Callable[[Leg], float | None], role: str = "") -> Metric:
    def values(snapshot: Snapshot) -> Values:
        for leg in islice(snapshot.legs, LEGS_MAX) if role in ("", snapshot.role) else ():
            yield from _known((str(leg.number), str(leg.path)), value(leg))

    return Metric(name, _kind(name), text, ("leg", "path"), values)


def _kind(name: str) -> Literal["counter", "gauge"]:
    return "counter" if name.endswith("_total") else "gauge"


def _known(labels: tuple[str, ...], value: float | None) -> Values:
    return () if value is None else ((labels, value),)


def _states(snapshot: Snapshot) -> Values:
    return (((state,), state == snapshot.state) for state in ("waiting", "running", "complete", "failed"))


def _waits(snapshot: Snapshot) -> Values:
    waits = snapshot.waits
    return (((what,), getattr(waits, what)) for what in ("source", "network", "core", "sink", "limit"))


def _addresses(snapshot: Snapshot) -> Values:
    return (((str(rank), path.address), 1) for rank, path in enumerate(islice(snapshot.paths, PATHS_MAX)))


def _left_s(snapshot: Snapshot) -> float | None:
    left_us = snapshot.left_us()
    return None if left_us is None else left_us / S_US


METRICS = (
    Metric(
        "viamillipede_info", "info", "The program.", ("version", "role"), lambda one: [((__version__, one.role), 1)]
    ),
    Metric("viamillipede_state", "gauge", "1 for the state that the stream is in.", ("state",), _states),
    _of_stream("viamillipede_elapsed_seconds", "Time since the first contact.", lambda one: one.elapsed_us / S_US),
    _of_stream("viamillipede_moved_bytes_total", "What the output has accepted.", lambda one: one.moved_bytes),
    _of_stream("viamillipede_read_bytes_total", "What was taken from the input.", lambda one: one.read_bytes),
    _of_stream("viamillipede_expected_bytes", "What size says is expected.", lambda one: one.size_bytes or None),
    _of_stream("viamillipede_left_seconds", "How long the rest takes at the average rate.", _left_s),
    _of_stream(
        "viamillipede_window_used_bytes",
        "Read and not acknowledged, or not due yet.",
        lambda one: one.window_used_bytes,
    ),
    _of_stream("viamillipede_window_bytes", "The largest that this may become.", lambda one: one.window_bytes),
    _of_stream("viamillipede_legs", "Legs that are connected.", lambda one: one.legs_up),
    _of_stream("viamillipede_restarts_total", "Legs that were opened anew.", lambda one: one.restarts),
    _of_stream("viamillipede_retransmitted_frames_total", "Frames sent again.", lambda one: one.retransmitted_frames),
    _of_stream("viamillipede_retransmitted_bytes_total", "Their size.", lambda one: one.retransmitted_bytes),
    _of_stream("viamillipede_hedges_total", "Second copies sent of late frames.", lambda one: one.hedges),
    _of_stream("viamillipede_corrupted_frames_total", "Frames that arrived damaged.", lambda one: one.corrupted),
    _of_stream("viamillipede_refused_connections_total", "Connections of strangers.", lambda one: one.refused),
    _of_stream("viamillipede_idle_seconds", "Time since bytes moved last.", lambda one: one.idle_us / S_US),
    _of_stream("viamillipede_stalled", "1 while nothing moves that should.", lambda one: one.stalled),
    Metric("viamillipede_wait_ratio", "gauge", "Share of the time that was waited for it.", ("for",), _waits),
    _of_stream("viamillipede_cpu_ratio", "Share of one core that the process uses.", lambda one: one.cpu_share),
    Metric("viamillipede_path_info", "info", "Where a path leads to.", ("path", "address"), _addresses),
    _of_paths("viamillipede_path_moved_bytes_total", "What went over it.", lambda path: path.moved_bytes),
    _of_paths("viamillipede_path_legs", "Its legs that are connected.", lambda path: path.legs_up),
    _of_paths("viamillipede_path_legs_wanted", "Its legs that are meant to be.", lambda path: path.legs_wanted or None),
    _of_legs("viamillipede_leg_up", "1 while it is connected.", lambda leg: leg.state != "down"),
    _of_legs("viamillipede_leg_moved_bytes_total", "Bytes on its present connection.", lambda leg: leg.moved_bytes),
    _of_legs("viamillipede_leg_rtt_seconds", "Its round trip.", lambda leg: leg.rtt_us / S_US if leg.rtt_us else None),
    _of_legs(
        "viamillipede_leg_retransmissions_total",
        "Segments that the kernel has sent again on its present connection.",
        lambda leg: leg.retransmissions,
    ),
    _of_legs("viamillipede_leg_in_flight_bytes", "Not acknowledged yet.", lambda leg: leg.in_flight_bytes, "tx"),
    _of_legs("viamillipede_leg_hedged_frames_total", "Second copies that it carried.", lambda leg: leg.hedged, "tx"),
    _of_legs("viamillipede_leg_vain_bytes_total", "What another had brought before.", lambda leg: leg.hedged, "rx"),
    _of_legs("viamillipede_leg_restarts_total", "How often it was opened anew.", lambda leg: leg.restarts),
)
STREAMS_NAME, STREAMS_HELP = "viamillipede_streams_total", "Streams that have ended, by their exit status."


class _Streams:
    """What the library asks at each scrape (its Collector)."""

    def __init__(self, latest: Callable[[], tuple[Snapshot, ...]], streams: Mapping[int, int] | None) -> None:
        self._latest, self._streams = latest, streams

    def describe(self) -> Iterator["Family"]:
        """The names, without asking anybody for values."""
        return self._families((), {})

    def collect(self) -> Iterator["Family"]:
        """Everything, as of now."""
        latest = {(one.session, one.name): one for one in self._latest()}  # a series twice would spoil the scrape
        return self._families(tuple(latest.values()), {} if self._streams is None else dict(self._streams))

    def _families(self, snapshots: tuple[Snapshot, ...], streams: dict[int, int]) -> Iterator["Family"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        for metric in METRICS:
            if metric.kind == "info":
                info = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help, labels=STREAM_LABELS)
                for one in snapshots:
                    for values, _ in metric.values(one):
                        info.add_metric((one.session, one.name), dict(zip(metric.labels, values, strict=True)))
                yield info
                continue
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=(*STREAM_LABELS, *metric.labels))
            for one in snapshots:
                for values, value in metric.values(one):
                    family.add_metric((one.session, one.name, *values), float(value))
            yield family
        if self._streams is not None:
            ended = CounterMetricFamily(STREAMS_NAME, STREAMS_HELP, labels=("outcome",))
            for status, count in sorted(streams.items()):
                ended.add_metric((str(status),), count)
            yield ended


def _handler(registry: "Collector") -> type[BaseHTTPRequestHandler]:
    from prometheus_client import MetricsHandler

    class Handler(MetricsHandler):
        """One request."""

        timeout = REQUEST_S
        server_version, sys_version = "viamillipede", ""
        error_message_format, error_content_type = "%(code)d %(message)s: %(explain)s\n", "text/plain; charset=utf-8"

        def do_GET(self) -> None:
            """The figures, or 404."""
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, explain="there is only /metrics")
                return
            try:
                super().do_GET()
            except OSError:
                raise  # who asked has gone away
            except Exception as error:  # nothing was sent so far: who asked shall know, and the stream goes on
                self.send_error(500, explain=f"{type(error).__name__}: {error}")

    Handler.registry = registry
    return Handler


class _Server(ThreadingHTTPServer):
    """A thread for each request, bounded in number and time, and all ended by `server_close`."""

    daemon_threads = False  # so that they are joined
    request_queue_size = REQUESTS_MAX  # a connection beyond it would be tried again after a second

    def __init__(self, address: Address, handler: type[BaseHTTPRequestHandler]) -> None:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, bound = found[0]
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        super().__init__(bound[:2], handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        """As a TCP server: an HTTP server would ask the name service for its own name, and wait for the answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            is_full = len(self._open) >= REQUESTS_MAX
            self._open.add(request)
        if is_full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked went away or was strange; they see it as a failed scrape. Standard error is for the stream."""

    def server_close(self) -> None:
        with self._lock:
            for request in self._open:
                with contextlib.suppress(OSError):  # it is gone already
                    request.shutdown(socket.SHUT_RDWR)
        super().server_close()


class MetricsServer:
    """Serves the snapshots of `latest`, which another thread calls: one, or that of each stream of `keep`.

    streams: how many have ended with each exit status so far; the caller counts on in it.
    """

    def __init__(
        self,
        address: Address,
        latest: Callable[[], tuple[Snapshot, ...]],
        streams: Mapping[int, int] | None = None,
    ) -> None:
        self._address = address
        self._collector = _Streams(latest, streams)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises OSError when the address cannot be had, UsageError without the client library."""
        try:
            from prometheus_client import CollectorRegistry
        except ImportError as error:
            what = "the Python package prometheus-client is missing"
            raise UsageError(f"metrics: {what}; install it, or leave the word out") from error
        registry = CollectorRegistry()
        registry.register(self._collector)
        self._server = _Server(self._address, _handler(registry))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )  # 0.1 s: how long `stop` may take
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens, also where the kernel chose; 0 while it does not."""
        return 0 if self._server is None else self._server.server_port

    def stop(self) -> None:
        """No thread and no socket of it is left. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None
