"""However it ends, no process is left: what is killed here, there, or by Ctrl-C."""

import os
import re
import signal
import subprocess

import psutil
import pytest

from tests.e2e.helpers import KIB, PATIENCE_S, Side, eventually, some_bytes
from tests.e2e.ssh import missing
from tests.ssh.helpers import ENDS_WITHIN_S, Ends, Host, Processes, read_terminal, terminal_for

MISSING = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING != "", reason=MISSING)]
PIECE = some_bytes(64 * KIB)


def under_way(host: Host, ends: Ends, *words: object) -> tuple[Side, Processes]:
    """A stream to the host whose first bytes have arrived, and that is not over."""
    near = ends.near("to", *words, *host.busy())
    near.write(PIECE)
    eventually(lambda: host["data"].exists() and host["data"].stat().st_size == len(PIECE), "the first bytes")
    return near, Processes(near, host)


def is_cut(host: Host) -> None:
    """What has arrived was not taken for the whole."""
    assert not host["eof"].exists()


@pytest.mark.parametrize("words", [(), ("tunnel",)], ids=["direct", "tunnel"])
def test_the_near_end_is_killed(host: Host, ends: Ends, words: tuple[str, ...]) -> None:
    near, processes = under_way(host, ends, "regroup", "10m", *words)  # the legs alone would take as long as that
    assert len(processes.ssh) == 1 + len(words)
    near.kill()
    processes.end()
    is_cut(host)


@pytest.mark.parametrize("words", [(), ("tunnel",)], ids=["direct", "tunnel"])
def test_ssh_is_killed(host: Host, ends: Ends, words: tuple[str, ...]) -> None:
    near, processes = under_way(host, ends, *words)
    next(each for each in processes.ssh if "-L" not in each.cmdline()).kill()
    said = near.ends(5, ENDS_WITHIN_S)
    ended = "ended, by signal 9, in the middle of the transfer; it carries the control channel"
    assert f"viamillipede to: ssh to {host.dest} {ended}" in said
    processes.end()
    is_cut(host)


def test_the_session_of_sshd_is_killed(host: Host, ends: Ends) -> None:
    near, processes = under_way(host, ends)
    session = next(each for each in processes.far.parents() if each.name() == "sshd")
    session.kill()
    assert f"ssh to {host.dest} ended in the middle of the transfer;" in near.ends(5, ENDS_WITHIN_S)
    processes.end()
    is_cut(host)


def test_the_far_end_is_terminated(host: Host, ends: Ends) -> None:
    """By somebody over there, who means it: that is no fault of ssh's."""
    near, processes = under_way(host, ends)
    processes.far.terminate()
    said = near.ends(8, ENDS_WITHIN_S)
    assert "terminated" in said and "ssh to" not in said
    processes.end()
    is_cut(host)


def test_the_far_end_is_killed(host: Host, ends: Ends) -> None:
    near, processes = under_way(host, ends, "regroup", "2s")
    processes.far.kill()
    said = near.ends(5, ENDS_WITHIN_S)
    assert "the far end was killed, or ssh lost its connection" in said
    processes.end()
    is_cut(host)


def test_the_tunnel_is_killed(host: Host, ends: Ends) -> None:
    near, processes = under_way(host, ends, "tunnel", "regroup", "2s")
    next(each for each in processes.ssh if "-L" in each.cmdline()).kill()
    near.ends(5, ENDS_WITHIN_S)
    processes.end()
    is_cut(host)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_near_end_is_told_to_end(host: Host, ends: Ends, number: int, status: int) -> None:
    near, processes = under_way(host, ends)
    near.signal(number)
    said = near.ends(status, ENDS_WITHIN_S)
    assert "the far end" not in said
    processes.end()
    is_cut(host)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("option", ["-G", "far-end"])
def test_the_near_end_is_ended_while_ssh_asks(host: Host, ends: Ends, number: int, option: str) -> None:
    asking = f"echo $$ >{host['asking-pid']}; exec sleep 1000"
    ssh = host.script("asking", f'case "$*" in *{option}*) {asking};; *) exec {host.ssh} "$@";; esac')
    near = ends.near("to", *host.busy(), ssh=ssh)
    process = psutil.Process(host.number("asking-pid"))
    near.signal(number)
    near.process.wait(ENDS_WITHIN_S)
    eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "the end of ssh")


def test_control_c(host: Host) -> None:
    """The terminal sends it to all of us: near end and ssh."""
    words = ("to", host.dest, "ssh-command", host.ssh, "far-command", host.program, *host.busy())
    with terminal_for(*words) as (master, process):
        assert process.stdin is not None
        process.stdin.write(PIECE)
        eventually(lambda: host["data"].exists() and host["data"].stat().st_size == len(PIECE), "the first bytes")
        here = psutil.Process(process.pid)
        far = psutil.Process(host.number("far"))
        all_of_them = [here, *here.children(recursive=True), far, *far.children(recursive=True)]
        os.write(master, b"\x03")
        assert process.wait(ENDS_WITHIN_S) == 130
        said = read_terminal(master)
    assert "interrupted" in said and "Traceback" not in said and "far end" not in said
    eventually(lambda: not any(each.is_running() for each in all_of_them), "the end of all", ENDS_WITHIN_S)
    is_cut(host)


def test_control_c_while_ssh_asks(host: Host) -> None:
    known = host["known"]
    ssh = host.how(StrictHostKeyChecking="ask", UserKnownHostsFile=known)
    words = ("to", host.dest, "ssh-command", ssh, "far-command", host.program, *host.busy())
    with terminal_for(*words) as (master, process):
        heard(master, "yes/no")
        os.write(master, b"\x03")
        assert process.wait(ENDS_WITHIN_S) == 130
        assert "Traceback" not in read_terminal(master)


def test_ssh_may_ask_on_the_terminal(host: Host) -> None:
    """Whether it trusts a key that it does not know, as it asks for a password."""
    known = host["known"]
    ssh = host.how(StrictHostKeyChecking="ask", UserKnownHostsFile=known, LogLevel="INFO")
    words = ("to", host.dest, "ssh-command", ssh, "far-command", host.program, *host.busy())
    with terminal_for(*words) as (master, process):
        heard(master, "yes/no")
        os.write(master, b"yes\n")
        assert process.stdin is not None
        process.stdin.write(PIECE)
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
        read_terminal(master)
    assert host["data"].read_bytes() == PIECE


def heard(master: int, text: str) -> None:
    """Wait until this stands on the terminal."""
    said = ""
    while text not in said:
        said += os.read(master, 65536).decode(errors="replace")


def test_a_command_that_leaves_something_behind_holds_nobody_up(host: Host, ends: Ends) -> None:
    """Its standard error stays open, so ssh would not end."""
    script = 'cat >"$1/data"; sleep 60 >&2 & echo $! >"$1/left"'
    near = ends.near("to", "--", "sh", "-c", script, "sh", host.folder)
    near.feed([PIECE])
    try:
        assert re.search("", near.ends(0, ENDS_WITHIN_S)) is not None
    finally:
        subprocess.run(["kill", str(host.number("left"))], check=False)
    assert host["data"].read_bytes() == PIECE
