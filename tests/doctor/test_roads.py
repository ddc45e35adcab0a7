"""The doctor over emulated links: what it recommends is what the links are known to need."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tests.e2e.helpers import ROOT, eventually
from tests.netlab import Lab, Link, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")]

PORT = 8834  # nobody else is on these hosts
PATIENCE_S = 60.0
PROGRAM = (sys.executable, "-m", "viamillipede")


def examined(link: Link, left: Sequence[str] = (), right: Sequence[str] = ()) -> dict[str, Any]:
    """What the doctor on the left host says of the way to the right one, whose settings are changed before."""
    with Lab([link], congestion="cubic") as lab:
        for host, settings in ((lab.left, left), (lab.right, right)):
            for setting in settings:
                host.run(["sysctl", "-w", setting])
        rx = lab.right.popen([*PROGRAM, "rx", str(PORT)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        eventually(lambda: PORT in lab.right.listening() or rx.poll() is not None, "rx listens", PATIENCE_S)
        doctor = lab.left.popen(
            [*PROGRAM, "doctor", lab.links[0].right, str(PORT), "json"],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        out, _ = doctor.communicate(timeout=PATIENCE_S)
        assert (doctor.returncode, rx.wait(PATIENCE_S)) == (0, 0)
    found: dict[str, Any] = json.loads(out)["peer"]
    print(json.dumps(found, indent=1))
    return found


def said(found: dict[str, Any]) -> str:
    """All of its advice."""
    return "\n".join(each["text"] for each in found["advice"])


def test_losses_want_many_legs_or_bbr() -> None:
    found = examined(Link(rate_mbit=100, delay_ms=50, loss=0.01))
    assert 95_000 < found["connects_us"][0] < 120_000
    assert (found["mss"], found["path_mtu"], found["congestion"]) == (1448, 1500, "cubic")
    rate = {step["legs"]: step["rate"] for step in found["steps"]}
    assert rate[16] > 5 * rate[1]
    legs = re.search(r"threads (\d+)", said(found))
    assert legs and int(legs[1]) >= 16  # 64 of them would fill it; a second is too short to tell 32 from 64
    assert "congestion bbr on tx" in said(found) or "congestion bbr does not" in said(found)


def test_a_road_without_losses_wants_one_leg() -> None:
    found = examined(Link(rate_mbit=50, delay_ms=5))
    assert said(found).startswith("threads auto, the default, or threads 1: 1 leg brings 4")
    assert "bbr" not in said(found) and "buffers" not in said(found) and "window" not in said(found)
    assert all(40e6 / 8 < step["rate"] < 50e6 / 8 for step in found["steps"])


@pytest.mark.parametrize(
    ("side", "setting", "waits_for", "command"),
    [
        ("left", "net.ipv4.tcp_wmem=4096 16384 262144", "send buffers", "sysctl -w net.ipv4.tcp_wmem="),
        ("right", "net.ipv4.tcp_rmem=4096 131072 262144", "receive buffers", "sysctl -w net.ipv4.tcp_rmem="),
    ],
)
def test_small_buffers_on_a_long_road_are_found(side: str, setting: str, waits_for: str, command: str) -> None:
    for _ in range(2):  # it measures, and others who keep this machine busy may spoil one measurement
        found = examined(Link(rate_mbit=100, delay_ms=50), **{side: [setting]})
        first, *_ = found["steps"]
        if first["waits_for"] == waits_for:
            break
    assert (first["legs"], first["waits_for"]) == (1, waits_for)
    assert first["rate"] < 30e6 / 8  # 256 KiB in each 100 ms
    assert any(line.startswith(command) for each in found["advice"] for line in each["commands"])
