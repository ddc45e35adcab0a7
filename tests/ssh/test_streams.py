"""Streams to and from another host: whole, in either direction, by every way, with the status of both ends."""

import json
import os
import pwd
import re
import socket
from contextlib import closing

import pytest

from tests.e2e.helpers import MIB, read_all, some_bytes
from tests.e2e.ssh import free_port, missing
from tests.ssh.helpers import Ends, Host, line_of

MISSING = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING != "", reason=MISSING)]
UNREACHED = r"is there, but not its port \d+ from here.* 'tunnel' .* 'also ADDRESS'"
NOISE = "echo Welcome; echo '{}'; printf '\\001half a line'; "


@pytest.mark.parametrize("count", [0, 1, 40 * MIB])
@pytest.mark.parametrize("words", [(), ("tunnel",)], ids=["direct", "tunnel"])
def test_to(host: Host, ends: Ends, count: int, words: tuple[str, ...]) -> None:
    near = ends.near("to", *words, *host.busy())
    near.feed([data := some_bytes(count)])
    near.ends(0)
    assert host["data"].read_bytes() == data
    assert host["eof"].exists()


@pytest.mark.parametrize("count", [0, 1, 40 * MIB])
@pytest.mark.parametrize("words", [(), ("tunnel",)], ids=["direct", "tunnel"])
def test_from(host: Host, ends: Ends, count: int, words: tuple[str, ...]) -> None:
    host["stream"].write_bytes(data := some_bytes(count))
    near = ends.near("from", *words, "--", "cat", host["stream"])
    assert read_all(near.output) == data
    near.ends(0)


def test_words_reach_the_side_that_they_are_for(host: Host, ends: Ends) -> None:
    script = 'until [ -e "$1" ]; do sleep 0.1; done; echo hello'
    words = ("threads", 3, "digest", "sha256", "verbose", 3, "--", "sh", "-c", script, "sh", host["go"])
    near = ends.near("from", *words)
    near.hear(": up$", times=3)
    host["go"].touch()
    assert read_all(near.output) == b"hello\n"
    said = near.ends(0)
    assert re.search(r"^viamillipede tx: .* 3 legs, .*sha256", said, re.MULTILINE)
    assert re.search(r"^viamillipede rx: .* 3 legs, .*sha256", said, re.MULTILINE)


def test_a_command_far_away_has_no_part_in_the_control_channel(host: Host, ends: Ends) -> None:
    """What it reads is empty or the stream, and what it says goes to standard error."""
    near = ends.near("from", "--", "sh", "-c", "cat; echo hello; echo aside >&2; pwd")
    assert read_all(near.output).decode() == f"hello\n{pwd.getpwuid(os.geteuid()).pw_dir}\n", "in the home directory"
    assert "aside" in near.ends(0)
    near = ends.near("to", "--", "sh", "-c", "cat >/dev/null; echo out; echo aside >&2; ls -l /proc/self/fd >&2")
    near.feed([b"x"])
    said = near.ends(0)
    assert re.search("^out$", said, re.MULTILINE) and re.search("^aside$", said, re.MULTILINE)
    assert not re.search(r" 1[0-9] ->", said), "the channel's descriptors are not handed on"


@pytest.mark.parametrize("verb", ["to", "from"])
def test_a_command_that_fails_far_away(ends: Ends, verb: str) -> None:
    near = ends.near(verb, "--", "sh", "-c", "echo why >&2; exit 3")
    if verb == "to":
        near.end_input()
    said = near.ends(8)
    assert re.findall(r".*\bwhy$", said, re.MULTILINE) == ["why"], "as it was said, and not quoted as well"
    assert len(re.findall("exited with status 3", said)) == 1, "it is said once"


def test_a_reader_that_goes_away(host: Host, ends: Ends) -> None:
    near = ends.near("from", "--", "sh", "-c", 'echo $PPID >"$1/far"; yes', "sh", host.folder)
    assert near.process.stdout is not None
    near.process.stdout.read(10)
    near.close_output()
    assert "the far end" not in near.ends(7), "our own failure is not told as if it were that of the other side"


def test_a_command_that_is_not_there(ends: Ends) -> None:
    assert "127.0.0.1: there is no command 'no-such-command' that can be run" in ends.near(
        "from", "--", "no-such-command"
    ).ends(2)


def test_a_program_that_is_not_there(host: Host, ends: Ends) -> None:
    near = ends.near("to", *host.busy(), program=str(host["nothing"]))
    said = near.ends(3)
    assert f"has no '{host['nothing']}' that can be run; install viamillipede there" in said
    assert "or say 'bring-file viamillipede-VERSION.pyz'" in said and "far-command" in said


def test_a_host_that_ssh_does_not_reach(host: Host, ends: Ends) -> None:
    with closing(free_port()) as port:
        near = ends.near("to", *host.busy(), ssh=host.how(Port=port.getsockname()[1]))
        said = near.ends(3)
    assert "Connection refused" in said, "ssh's own words"
    assert "ssh to" in said and "failed, and said why above; check that" in said


def test_an_ssh_that_is_not_there(ends: Ends) -> None:
    said = ends.near("from", "--", "cat", ssh="no-such-ssh").ends(3)
    assert "cannot run 'no-such-ssh'" in said


def test_what_a_login_shell_prints_is_passed_over(host: Host, ends: Ends) -> None:
    near = ends.near("from", "--", "echo", "hello", program=NOISE + host.program)
    assert read_all(near.output) == b"hello\n"
    near.ends(0)


def test_a_login_shell_that_prints_without_end(host: Host, ends: Ends) -> None:
    said = ends.near("from", "--", "echo", "hello", program="yes;" + host.program).ends(5)
    assert "is not from viamillipede; does a login script over there print that?" in said


@pytest.mark.parametrize(
    ("program", "status", "expected"),
    [
        ("true", 3, "gave no answer"),
        ("exit 2;", 4, "it does not know 'far-end'"),
        (f"echo '{line_of(port=1, pid=1, wire=99)}';", 4, "it speaks version 99"),
        (f"echo '{line_of(port='x')}';", 4, "its message is malformed"),
        (f"echo '{line_of(port=10**30, pid=1)}';", 4, "it listens on what is no port"),
        (f"echo '{line_of(port=0, pid=1)}';", 4, "it listens on what is no port"),
        ("echo '{\"viamillipede\": 9}';", 4, "it speaks protocol 9 through ssh"),
        ("kill -9 $$;", 3, "failed, and said why above"),
    ],
)
def test_a_far_end_that_is_another(ends: Ends, program: str, status: int, expected: str) -> None:
    said = ends.near("from", "--", "cat", program=program).ends(status)
    assert expected in said
    assert len([line for line in said.splitlines() if line.startswith("viamillipede")]) == 1


def test_the_port_is_one_of_those_that_are_asked_for(host: Host, ends: Ends) -> None:
    with socket.create_server(("", 0)) as taken:
        port = int(taken.getsockname()[1])
        near = ends.near("from", "port", port, "--", "echo", "hello")
        said = near.ends(3)
        assert f"cannot listen on port {port}" in said and "say several with port LOW-HIGH" in said
        near = ends.near("from", "port", f"{port}-{min(port + 50, 65535)}", "verbose", 3, "--", "echo", "hello")
        assert read_all(near.output) == b"hello\n"
        said = near.ends(0)
    found = re.search(r"listening on port (\d+)", said)
    assert found and port < int(found[1]) <= port + 50


def test_other_addresses_of_the_host(ends: Ends) -> None:
    near = ends.near("from", "also", "127.0.0.2", "also", "[::1]", "threads", 6, "verbose", 3, "--", "yes", "no")
    assert near.process.stdout is not None
    assert near.process.stdout.read(5) == b"no\nno"
    for address in ("127.0.0.1", "127.0.0.2", "[::1]"):
        near.hear(rf"leg \d+ to {re.escape(address)}:\d+: up")
    near.close_output()
    near.ends(7)


def test_an_address_with_a_port_of_its_own(ends: Ends) -> None:
    with closing(free_port()) as nobody:
        port = int(nobody.getsockname()[1])
        near = ends.near("from", "also", f"127.0.0.2:{port}", "verbose", 3, "--", "sleep", 1)
        near.hear(rf"127\.0\.0\.2:{port}: .*refused")
        near.ends(0)


def test_the_address_is_what_ssh_says(host: Host, ends: Ends) -> None:
    script = f'case " $* " in *" -G "*) echo hostname 127.0.0.3;; *) exec {host.ssh} "$@";; esac'
    near = ends.near("from", "verbose", 3, "--", "echo", "hello", ssh=host.script("elsewhere", script))
    assert read_all(near.output) == b"hello\n"
    assert re.search(r"leg 0 to 127\.0\.0\.3:\d+: up", near.ends(0))


@pytest.mark.parametrize("verb", ["to", "from"])
def test_a_port_that_cannot_be_reached(host: Host, ends: Ends, verb: str) -> None:
    """The far end is there, and no way leads to it: here, from an address that this host has not."""
    near = ends.near(verb, "wait", "1s", "bind", "192.0.2.1", *host.busy())
    said = near.ends(3)
    assert re.search(UNREACHED, said)


@pytest.mark.parametrize("verb", ["to", "from"])
def test_what_helps_is_said_while_there_is_time(host: Host, ends: Ends, verb: str) -> None:
    near = ends.near(verb, "wait", "8s", "bind", "192.0.2.1", *host.busy())
    near.hear(UNREACHED)
    assert near.process.poll() is None
    assert len(re.findall(UNREACHED, near.ends(3))) == 1


def test_no_hint_where_the_port_answers(ends: Ends) -> None:
    assert not re.search(UNREACHED, ends.near("from", "--", "sleep", 4).ends(0))


@pytest.mark.parametrize("words", [(), ("tunnel",)], ids=["direct", "tunnel"])
def test_json_is_all_that_is_said(host: Host, ends: Ends, words: tuple[str, ...]) -> None:
    """ssh's own words too, and what a login shell and the command say, a last line without its end included."""
    ssh = host.script("talking", f'echo "ssh speaks" >&2; exec {host.ssh} "$@"')
    script = "cat >/dev/null; echo aside >&2; sleep 0.5; printf 'the \\351nd' >&2"
    near = ends.near("to", *words, "json", "--", "sh", "-c", script, ssh=ssh, program="echo login >&2; " + host.program)
    near.feed([b"x"])
    lines = [json.loads(line) for line in near.ends(0).splitlines()]
    texts = [line["text"] for line in lines if line["type"] == "message" and line["role"] == "to"]
    assert texts == ["ssh speaks", "login", *["ssh speaks"] * len(words), "aside", "the \ufffdnd"]
    assert [line["type"] for line in lines].count("end") == 1


def test_json_where_ssh_fails(host: Host, ends: Ends) -> None:
    with closing(free_port()) as port:
        near = ends.near("to", "json", *host.busy(), ssh=host.how(Port=port.getsockname()[1]))
        texts = [json.loads(line)["text"] for line in near.ends(3).splitlines()]
    assert "Connection refused" in texts[0], "ssh's own words"
    assert texts[-1].startswith("ssh to") and "failed, and said why above" in texts[-1]


def test_far_end_is_nothing_to_type(ends: Ends) -> None:
    side = ends.raw("far-end")
    side.end_input()
    assert "it is nothing to type" in side.ends(2)
