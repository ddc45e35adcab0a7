"""What programs are told: lines of progress, JSON, metrics, a log file, syslog, the service manager."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import sh
from tests.e2e.helpers import LOOPBACK, MIB, PATIENCE_S, Side, Stage, eventually, read_all, read_exactly
from tests.e2e.proxy import UP, Fault
from viamillipede.protocol.wire import GREETING_BYTES

PLAIN = re.compile(
    r"viamillipede [rt]x: [\d.]+ \w+, [\d.]+ \w+/s now, [\d.]+ \w+/s on average, "
    r"\d+ (of \d+ )?legs?, window .*, [\d.]+ s.*"
)


def finish(rx: Side, tx: Side, rest: int = 0) -> None:
    """The input ends, and so do both, well."""
    tx.end_input()
    assert len(read_all(rx.output)) == rest
    tx.ends(0)
    rx.ends(0)


def begin(stage: Stage, rx_words: tuple[object, ...] = (), tx_words: tuple[object, ...] = ()) -> tuple[Side, Side]:
    """rx and tx, and the first byte has come through."""
    rx = stage.rx(*rx_words)
    tx = stage.tx(rx, *tx_words)
    tx.write(b"x")
    assert read_exactly(rx.output, 1) == b"x"
    return rx, tx


# ---- lines of progress -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "least", "most"),
    [(("interval", "200ms"), 4, 11), (("progress", "interval", "500ms"), 2, 4), (("progress",), 1, 2), ((), 0, 0)],
    ids=["interval", "both", "progress", "neither"],
)
def test_a_line_per_interval(stage: Stage, words: tuple[object, ...], least: int, most: int) -> None:
    """Where nobody looks: none, unless it was asked for."""
    rx, tx = begin(stage, words, words)
    time.sleep(1.7)
    finish(rx, tx)
    for side in (tx, rx):
        lines = [line for line in side.said.splitlines() if " now, " in line]
        assert least <= len(lines) <= most and all(map(PLAIN.fullmatch, lines)), lines
        assert side.said.isprintable() or side.said.replace("\n", "").isprintable()


def test_a_line_of_progress_tells_how_much_is_left(stage: Stage) -> None:
    rx, tx = begin(stage, (), ("interval", "200ms", "size", "8M", "limit", "2M"))
    tx.feed([bytes(4 * MIB)], then_close=False)
    assert len(read_exactly(rx.output, 4 * MIB)) == 4 * MIB
    tx.hear(r", 50 %, \d+ s left")
    finish(rx, tx)
    found = [int(percent) for percent in re.findall(r", (\d+) %, ", tx.said)]
    assert found == sorted(found) and found[-1] == 50 and len(set(found)) > 3


def test_each_of_several_streams_says_who_it_is(stage: Stage) -> None:
    rx = stage.rx("keep", "streams", 2, "interval", "200ms", *sh("cat >/dev/null"), stdout=subprocess.DEVNULL)
    streams = [stage.tx(rx, "name", name) for name in ("one", "two")]
    for tx in streams:
        tx.write(b"x")
    for name in ("one", "two"):
        rx.hear(f"^viamillipede rx {name}: .* now, ")
    for tx in streams:
        tx.end_input()
        tx.ends(0)
    rx.signal(signal.SIGTERM)
    rx.ends(143)


# ---- stalls ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_a_stall_of_the_network_is_called_one(stage: Stage) -> None:
    """Three streams in which nothing moves for 12 s: the network, the input, the output."""
    rx = stage.rx("json")
    proxy = stage.proxy(rx)
    # Heartbeats of rx go on, and new legs come up.
    proxy.plan = lambda number: Fault("stall", UP, 100_000 if number < 2 else GREETING_BYTES)
    tx = stage.tx(proxy, "interval", "500ms", "threads", 2)
    tx.feed([bytes(MIB)])
    quiet = begin(stage, ("interval", "500ms"), ("interval", "500ms"))
    held = stage.rx("interval", "500ms")
    holding = stage.tx(held, "interval", "500ms", "window", "64k")
    holding.feed([bytes(4 * MIB)])
    tx.hear(r"^viamillipede tx: STALLED \d\d s: waiting for frame \d+ on leg \d+ \(127\.0\.0\.1\)$")
    tx.hear(r" now, .*, STALLED \d\d s: waiting for ")
    proxy.plan = lambda number: None
    proxy.strike("reset")
    assert len(read_all(rx.output)) == MIB
    tx.ends(0)
    rx.ends(0)
    assert len(re.findall(r"^viamillipede tx: STALLED ", tx.said, re.MULTILINE)) == 1, "said once"
    for side in quiet:
        side.hear(r"waiting for input 1\d s$")
    for side in (held, holding):
        side.hear(r"waiting for output 1\d s$")
    finish(*quiet)
    assert len(read_all(held.output)) == 4 * MIB
    holding.ends(0)
    held.ends(0)
    for side in (*quiet, held, holding):
        assert "STALLED" not in side.said


# ---- JSON ------------------------------------------------------------------------------------------------------


def json_lines(side: Side) -> list[dict[str, Any]]:
    """All that it has said, which is JSON; the last one is the end, and there is no other end."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in side.said.splitlines()]
    assert [line["type"] for line in lines].count("end") == 1 and lines[-1]["type"] == "end"
    assert {line["type"] for line in lines} <= {"progress", "message", "end"}
    for line in lines:
        assert line["role"] == side.role and line["version"] == 1 and line["pid"] == side.pid
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), line["time"]
    end = lines[-1]
    assert end["exit_status"] == side.process.returncode
    assert (end["state"], bool(end["reason"])) == (("failed", True) if end["exit_status"] else ("complete", False))
    assert "\n" not in end["reason"]
    return lines


def test_json_of_a_success(stage: Stage) -> None:
    words = ("json", "interval", "200ms", "digest", "xxh3")
    rx, tx = begin(stage, words, (*words, "name", "db1", "size", "2M", "limit", "1M"))
    tx.feed([bytes(MIB - 1)])
    assert len(read_all(rx.output)) == MIB - 1
    tx.ends(0)
    rx.ends(0)
    ends = []
    for side in (tx, rx):
        lines = json_lines(side)
        progress = [line for line in lines if line["type"] == "progress"]
        moved = [line["moved_bytes"] for line in progress]
        assert len(progress) >= 3 and moved == sorted(moved) and progress[-1]["state"] == "running"
        end = lines[-1]
        assert (end["moved_bytes"], end["name"], end["reason"]) == (MIB, "db1", "")
        assert end["digest"].startswith("xxh3-128 ") and end["digest"] in lines[-2]["text"]
        assert f"({MIB} bytes)" in lines[-2]["text"] and end["verdict"] in lines[-2]["text"]
        assert end["peer"].startswith(LOOPBACK) and end["paths"][0]["moved_bytes"] > MIB
        assert set(progress[-1]) == set(end) - {"exit_status", "reason", "cipher", "digest"}
        ends.append(end)
    assert ends[0]["session"] == ends[1]["session"] and re.fullmatch("[0-9a-f]{32}", ends[0]["session"])
    assert ends[0]["size_bytes"] == 2 * MIB and ends[1]["size_bytes"] is None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_json_of_a_signal(stage: Stage, number: signal.Signals, status: int) -> None:
    rx, tx = begin(stage, ("json",), ("json",))
    tx.signal(number)
    tx.ends(status)
    rx.ends(8)
    ours, theirs = json_lines(tx)[-1]["reason"], json_lines(rx)[-1]["reason"]
    assert ours in theirs and theirs.startswith("the transmitter gave up at byte 1: ")


def test_json_of_a_failure(stage: Stage) -> None:
    """The reason is one line; what the command said is in the message, with a bar in front."""
    rx = stage.rx("json", *sh("read line; echo no space for $line >&2; exit 3"), stdout=subprocess.DEVNULL)
    tx = stage.tx(rx, "json")
    tx.write(b"you\n")
    tx.ends(8)
    rx.ends(7)
    lines = json_lines(tx)
    assert lines[-1]["reason"].endswith(" exited with status 3")
    assert lines[-2]["level"] == 0 and "\n  | no space for you" in lines[-2]["text"]
    assert "exited with status 3" in json_lines(rx)[-1]["reason"]


def test_json_where_nobody_comes(stage: Stage) -> None:
    rx, tx = stage.rx("json", "wait", "300ms"), stage.tx_words("tx", LOOPBACK, 1, "json", "wait", "300ms")
    rx.ends(9)
    tx.ends(3)
    for side in (tx, rx):
        end = json_lines(side)[-1]
        assert (end["contacted"], end["moved_bytes"], end["verdict"]) == (False, 0, "")


# ---- metrics ---------------------------------------------------------------------------------------------------


def figures(side: Side) -> dict[str, float]:
    """What it serves at the moment."""
    port = int(side.hear(r"metrics at http://127\.0\.0\.1:(\d+)/metrics")[1])
    connection = HTTPConnection(LOOPBACK, port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def figure(side: Side, name: str, labels: str = "") -> float:
    """One of these; -1: there is none."""
    pattern = re.compile(rf"viamillipede_{name}(\{{.*{labels}.*\}})?")
    return next((value for key, value in figures(side).items() if pattern.fullmatch(key)), -1)


def test_metrics_agree_with_the_closing_line(stage: Stage) -> None:
    words = ("metrics", 0, "interval", "100ms")
    rx, tx = begin(stage, words, words)
    tx.feed([bytes(999_999)], then_close=False)
    assert len(read_exactly(rx.output, 999_999)) == 999_999
    for side in (tx, rx):
        eventually(lambda side=side: figure(side, "moved_bytes_total") == 1e6, "all is told")  # type: ignore[misc]
        assert figure(side, "state", 'state="running"') == 1 and figure(side, "legs") >= 1
        eventually(lambda side=side: figure(side, "wait_ratio", 'for="source"') > 0.5, "the verdict")  # type: ignore[misc]
    finish(rx, tx)
    for side in (tx, rx):
        assert "(1000000 bytes)" in side.closing_line()


def test_metrics_of_several_streams(stage: Stage) -> None:
    rx = stage.rx(
        "keep", "streams", 2, "metrics", 0, "interval", "100ms", *sh("cat >/dev/null"), stdout=subprocess.DEVNULL
    )
    streams = {name: stage.tx(rx, "name", name) for name in ("one", "two")}
    for count, (name, tx) in enumerate(streams.items(), 1):
        tx.write(bytes(count * 1000))
        sample = f'name="{name}"'
        eventually(lambda at=sample, count=count: figure(rx, "moved_bytes_total", at) == count * 1000, sample)  # type: ignore[misc]
    for tx in streams.values():
        tx.end_input()
        tx.ends(0)
    eventually(lambda: figure(rx, "streams_total", 'outcome="0"') == 2, "both have ended")
    assert figure(rx, "moved_bytes_total", 'name="one"') == -1
    rx.signal(signal.SIGTERM)
    rx.ends(143)


@pytest.mark.parametrize("words", [(), ("json",)], ids=["words", "json"])
def test_the_metrics_port_is_taken(stage: Stage, words: tuple[object, ...]) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        tx = stage.tx_words("tx", LOOPBACK, 1, "metrics", port, *words, stdin=subprocess.PIPE)
        tx.ends(3)
    reason = f"cannot serve metrics at {LOOPBACK}:{port}: Address already in use"
    assert tx.said.count(reason) == (2 if words else 1), "in JSON as a message, and at the end"
    if words:
        assert json_lines(tx)[-1]["reason"] == reason


# ---- a file, syslog ----------------------------------------------------------------------------------------------


def test_the_log_file_has_all_that_was_said_and_why_it_failed(stage: Stage, tmp_path: Path) -> None:
    files = tmp_path / "rx.log", tmp_path / "tx.log"
    rx, tx = begin(stage, ("log", files[0], "verbose", 3), ("log", files[1], "progress", "interval", "100ms"))
    time.sleep(0.3)
    tx.signal(signal.SIGTERM)
    tx.ends(143)
    rx.ends(8)
    for side, file in ((rx, files[0]), (tx, files[1])):
        said = [line.removeprefix("viamillipede ") for line in side.said.splitlines() if " now, " not in line]
        stamp = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{12}[+-]\d\d:\d\d viamillipede ")
        lines = file.read_text().splitlines()
        assert all(map(stamp.match, lines)) and [stamp.sub("", line) for line in lines] == said
    assert "tx: terminated" in files[1].read_text() and "gave up at byte 1: terminated" in files[0].read_text()


def test_syslog(tmp_path: Path) -> None:
    """A daemon of the test, in the place of the system's."""
    path = tmp_path / "log"
    run = "import sys; from viamillipede.aio import log_outputs; log_outputs.SYSLOG_SOCKETS = (sys.argv.pop(1),); "
    run += "from viamillipede.cli import main; sys.exit(main())"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        words = [str(path), "rx", "0", "wait", "100ms", "syslog"]
        done = subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 9
        daemon.setblocking(False)
        told = []
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(daemon.recv(4096).decode().rstrip("\0"))
    said = [line.removeprefix("viamillipede ") for line in done.stderr.splitlines()]
    assert [re.sub(r"^<\d+>viamillipede\[\d+\]: ", "", line) for line in told] == said and len(said) == 3
    assert [int(line[1 : line.index(">")]) & 7 for line in told] == [4, 4, 3], "warnings, and an error"


# ---- the service manager -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def manager(folder: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Iterator[socket.socket]:
    """It listens for what the processes that are started meanwhile tell it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "notify"))
        sock.settimeout(PATIENCE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield sock


def told(sock: socket.socket, what: str) -> list[str]:
    """All until this comes, which must be soon."""
    lines: list[str] = []
    while what not in lines:
        lines += sock.recv(4096).decode().splitlines()
    return lines


@pytest.mark.parametrize("words", [(), ("keep", *sh("cat >/dev/null"))], ids=["once", "keep"])
def test_a_service_is_ready_alive_and_stopping(
    stage: Stage, words: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that it runs, and the streams that it forks, know nothing of the manager."""
    with manager(tmp_path, monkeypatch, WATCHDOG_USEC="400000") as sock:
        rx = stage.rx(*words)
        assert told(sock, "READY=1")[-1] == "READY=1"
        began = time.monotonic()
        for _ in range(3):
            told(sock, "WATCHDOG=1")
        assert time.monotonic() - began >= 0.3, "about as often as it was asked for"
        rx.signal(signal.SIGTERM)
        assert set(told(sock, "STOPPING=1")) <= {"WATCHDOG=1", "STOPPING=1"}
        rx.ends(143)


@pytest.mark.parametrize("keep", [False, True], ids=["once", "keep"])
def test_a_socket_of_the_manager_is_served(stage: Stage, keep: bool) -> None:
    """It is handed over as descriptor 3; the port in the command line does not matter then."""
    hand_over = "import os, sys; os.dup2(0, 3); os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}; "
    hand_over += "os.execvp(sys.argv[1], sys.argv[1:])"
    words = ("keep", *sh("cat >/dev/null")) if keep else ()
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        wrapper = [sys.executable, "-ISc", hand_over]
        rx = Side("rx", ["rx", 1, *words], server, subprocess.PIPE, None, wrapper)
        stage.exit.callback(rx.release)
        for _ in range(2 if keep else 1):
            tx = stage.tx(port)
            tx.feed([b"hello"])
            if not keep:
                assert read_all(rx.output) == b"hello"
            tx.ends(0)
        if keep:
            rx.signal(signal.SIGTERM)
        rx.ends(143 if keep else 0)
