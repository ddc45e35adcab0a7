"""The network between the two ends falls silent: nobody is told, and both ends find out by themselves."""

import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.commands import lives
from tests.e2e.helpers import KIB, ROOT, eventually, some_bytes
from tests.e2e.ssh import SSHD, missing, wrapper
from tests.netlab import Lab, Link
from tests.netlab import missing as missing_lab
from tests.ssh.helpers import BUSY, QUIET

LACKING = missing() or (f"needs {missing_lab()}" if missing_lab() else "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(LACKING != "", reason=LACKING)]
PORT = 2222  # in a namespace of our own
ENDS_WITHIN_S = 60


def sshd_config(folder: Path, address: str) -> list[str]:
    """What starts an sshd at this address, with keys of its own."""
    assert SSHD is not None
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_text((folder / "client.pub").read_text())
    (folder / "config").write_text(
        f"ListenAddress {address}:{PORT}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    return [*wrapper(), SSHD, "-D", "-e", "-f", str(folder / "config")]


def near_end(folder: Path, address: str) -> list[str]:
    """`viamillipede to` that host."""
    files = {"IdentityFile": folder / "client", "Port": PORT}
    options = [f"-o{name}={value}" for name, value in {**QUIET, **files}.items()]
    program = folder / "viamillipede"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m viamillipede "$@"\n')
    program.chmod(0o755)
    return [
        sys.executable, "-m", "viamillipede", "to", f"{pwd.getpwuid(os.geteuid()).pw_name}@{address}",
        "ssh-command", shlex.join(["ssh", "-F", "none", *options]), "far-command", str(program),
        "outage", "2s", "--", "sh", "-c", BUSY, "sh", str(folder),
    ]  # fmt: skip


def process_in(mark: Path) -> psutil.Process:
    """The process whose number a command has written there, once it has."""
    eventually(lambda: mark.exists() and mark.read_text().endswith("\n"), f"the mark {mark.name}")
    return psutil.Process(int(mark.read_text()))


def test_the_network_is_cut(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    piece = some_bytes(64 * KIB)
    with Lab([Link(rate_mbit=100, delay_ms=1)], seed=1) as lab:
        address = lab.right.addresses[0]
        with (tmp_path / "sshd.log").open("w") as log:
            lab.right.popen(sshd_config(tmp_path, address), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(lambda: PORT in lab.right.listening(), "sshd listens")
        with lab.left.popen(
            near_end(tmp_path, address), stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, bufsize=0
        ) as near:
            assert near.stdin is not None and near.stderr is not None
            near.stdin.write(piece)
            data = tmp_path / "data"
            eventually(lambda: data.exists() and data.stat().st_size == len(piece), "the first bytes")
            far, command = process_in(tmp_path / "far"), process_in(tmp_path / "command")
            ours = [*psutil.Process(near.pid).children(recursive=True), far, command, *far.children(recursive=True)]
            lab.links[0].down()
            said = near.stderr.read().decode()
            assert near.wait(ENDS_WITHIN_S) == 5, said
            assert "the network was down for too long" in said and "Traceback" not in said
            eventually(lambda: not any(lives(each) for each in ours), "the end of all processes", ENDS_WITHIN_S)
    assert not (tmp_path / "eof").exists(), "what has arrived was taken for the whole"
