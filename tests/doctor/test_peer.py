"""The doctor in this process, and real receivers; loopback only. Steps are short here: what matters is how it ends."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.doctor.hosts import host
from tests.e2e.helpers import LOOPBACK, Side, Stage
from viamillipede.config import KIB, MS_US, S_US, Address, DoctorConfig
from viamillipede.doctor import examine, peer
from viamillipede.doctor.peer import TestStream
from viamillipede.errors import LimitReached, NoContact, PeerLost, RemoteFailed, SessionRefused

pytestmark = pytest.mark.slow

STEPS = (1, 2, 4)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Processes that end with the test."""
    with Stage() as stage:
        yield stage


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred milliseconds for each of a few steps."""
    for name, value in {
        "STEPS": STEPS,
        "STEPS_MORE": (),
        "SETTLE_US_MIN": 100 * MS_US,
        "MEASURE_US_MIN": 300 * MS_US,
        "END_US": 2 * S_US,
    }.items():
        monkeypatch.setattr(peer, name, value)


def doctor(tmp_path: Path, port: int, **words: Any) -> int:
    """Examine a made-up host, and the way to a port of this one."""
    said: dict[str, Any] = {"address": Address(LOOPBACK, port), "json": True, "wait_us": S_US} | words
    return examine(DoctorConfig(**said), host(tmp_path))


def told(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What it said about the peer."""
    found: dict[str, Any] = json.loads(capfd.readouterr().out)["peer"]
    return found


def thrown_away(stage: Stage, *words: object) -> Side:
    """A receiver as the manual wants it."""
    return stage.rx(*words, stdout=subprocess.DEVNULL)


def test_one_plain_receiver_is_enough(stage: Stage, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rx = thrown_away(stage)
    assert doctor(tmp_path, rx.port) == 0
    said = rx.ends(0)
    assert "refused" not in said and rx.closing("restart") == 0
    found = told(capfd)
    assert found["address"] == f"{LOOPBACK}:{rx.port}"
    assert len(found["connects_us"]) >= peer.CONNECTS and 0 < found["connects_us"][0] < 100 * MS_US
    assert found["connects_us"] == sorted(found["connects_us"])
    assert [step["legs"] for step in found["steps"]] == list(STEPS)
    assert all(step["rate"] > 0 and 0 <= step["core_share"] < 2 for step in found["steps"])
    loopback = next(
        name for name, all_of in psutil.net_if_addrs().items() if any(a.address == LOOPBACK for a in all_of)
    )
    assert found["interface"] == loopback and found["interface_mbit"] is None
    assert found["mss"] > 500 and found["path_mtu"] > found["mss"] and found["congestion"]
    assert found["advice"]


def test_a_reader_gets_a_report_and_a_warning(stage: Stage, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rx = thrown_away(stage)
    assert doctor(tmp_path, rx.port, json=False) == 0
    rx.ends(0)
    out, err = capfd.readouterr()
    assert out.index("Pipes and descriptors") < out.index(f"The way to {LOOPBACK}:{rx.port}") < out.index("Recommended")
    assert max(map(len, out.splitlines())) <= 80 and "\033" not in out
    assert f"sends a test stream to {LOOPBACK}:{rx.port}" in err and f"rx {rx.port} > /dev/null" in err


def test_without_a_peer_it_looks_at_this_host_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert examine(DoctorConfig(), host(tmp_path)) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Machine\n") and "The way to" not in out and not err
    assert examine(DoctorConfig(json=True), host(tmp_path)) == 0
    assert told(capfd) is None


@pytest.mark.parametrize("as_json", [False, True])
def test_a_receiver_that_cannot_be_reached(tmp_path: Path, capfd: pytest.CaptureFixture[str], as_json: bool) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NoContact, match=f"{LOOPBACK}:{port}: Connection refused"):
        doctor(tmp_path, port, json=as_json, wait_us=100 * MS_US)
    out = capfd.readouterr().out
    assert json.loads(out)["peer"] is None if as_json else out.endswith("limits a transfer here.\n")


def test_a_receiver_that_refuses(stage: Stage, tmp_path: Path) -> None:
    rx = thrown_away(stage, "checkphrase", "abcd")
    with pytest.raises(SessionRefused, match="another checkphrase"):
        doctor(tmp_path, rx.port)
    assert doctor(tmp_path, rx.port, checkphrase=b"abcd") == 0
    rx.ends(0)


def test_a_receiver_for_certain_streams_is_not_met_by_accident(stage: Stage, tmp_path: Path) -> None:
    rx = thrown_away(stage, "names", "db*")
    with pytest.raises(SessionRefused, match="does not take streams of the name"):
        doctor(tmp_path, rx.port)
    rx.kill()
    meant = thrown_away(stage, "names", "doctor")
    assert doctor(tmp_path, meant.port) == 0
    meant.ends(0)


def test_a_receiver_that_dies_leaves_what_was_measured(
    stage: Stage, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rx = thrown_away(stage, "regroup", "1s")
    begin = peer.Probe._begin

    def begin_and_kill(probe: peer.Probe, now: int) -> None:
        begin(probe, now)
        if len(probe.steps) == 1:
            rx.kill()

    monkeypatch.setattr(peer.Probe, "_begin", begin_and_kill)
    monkeypatch.setattr(peer, "REGROUP_US", S_US)
    with pytest.raises(PeerLost):
        doctor(tmp_path, rx.port)
    assert len(told(capfd)["steps"]) >= 1


def test_an_output_that_is_slow_is_told(stage: Stage, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rx = stage.rx("window", "1M")
    slow = "import os, time\nwhile os.read(0, 65536): time.sleep(0.01)\n"
    assert rx.process.stdout is not None
    with subprocess.Popen([sys.executable, "-c", slow], stdin=rx.process.stdout) as reader:
        rx.close_output()
        assert doctor(tmp_path, rx.port) == 0
        rx.ends(0)
        assert reader.wait(10) == 0
    found = told(capfd)
    assert [step["waits_for"] for step in found["steps"]] == ["rx's output"] * len(STEPS)
    assert "is what rx's output can do: unless that is /dev/null" in found["advice"][0]["text"]


def test_an_output_that_takes_nothing_ends_it(stage: Stage, tmp_path: Path) -> None:
    rx = stage.rx()
    with pytest.raises(LimitReached, match="did not take the end of the test stream"):
        doctor(tmp_path, rx.port)
    rx.ends(8)


def test_a_reader_that_dies_is_told(stage: Stage, tmp_path: Path) -> None:
    rx = stage.rx()
    rx.close_output()
    with pytest.raises(RemoteFailed):
        doctor(tmp_path, rx.port)
    rx.ends(7)


def test_the_program_says_in_one_line_that_nobody_is_there(stage: Stage) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    said = stage.tx_words("doctor", LOOPBACK, port, "wait", "100ms").ends(3)
    assert said.splitlines()[-1] == (f"viamillipede doctor: no contact: {LOOPBACK}:{port}: Connection refused")


def test_the_program_can_be_interrupted(stage: Stage) -> None:
    rx = thrown_away(stage, "verbose", 2)
    program = stage.tx_words("doctor", LOOPBACK, rx.port, stdin=subprocess.DEVNULL)
    rx.hear("first contact")
    program.signal(signal.SIGINT)
    assert "Traceback" not in program.ends(130)
    assert rx.ends(8).endswith(": interrupted")


def test_the_test_stream_is_one_block_again_and_again() -> None:
    stream = TestStream()
    view = memoryview(bytearray(3 * KIB))
    assert stream.read_into(view) is None
    stream.flows = True
    taken = bytearray()
    while len(taken) < 2 * peer.BLOCK_BYTES:
        count = stream.read_into(view)
        assert count
        taken += view[:count]
    assert taken[: peer.BLOCK_BYTES] == taken[peer.BLOCK_BYTES : 2 * peer.BLOCK_BYTES]
    assert len(set(taken[:KIB])) > 200
    stream.ended = True
    assert stream.read_into(view) == 0
