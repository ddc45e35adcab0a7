"""What ssh says, as messages in JSON."""

import json
import os
import subprocess
import time

import pytest

from tests.ssh.helpers import line_of
from viamillipede.ssh import aside
from viamillipede.ssh.aside import LINE_BYTES_MAX, Aside
from viamillipede.ssh.control import Ssh
from viamillipede.ssh.messages import Answer


def texts(err: str) -> list[str]:
    """Of the messages."""
    lines = [json.loads(line) for line in err.splitlines()]
    assert all((line["type"], line["role"], line["level"]) == ("message", "from", 1) for line in lines)
    return [line["text"] for line in lines]


def test_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with Aside("from") as one:
        os.write(one.theirs, b"first\nsec")
        assert one.pass_on() and not one.has_thread
        assert texts(capfd.readouterr().err) == ["first"]
        one.start()
        one.start()
        os.write(one.theirs, b"ond\r\n\n" + b"x" * 10 + b"\nno end")
        assert one.has_thread
    assert texts(capfd.readouterr().err) == ["second", "x" * 10, "no end"]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(one.ours)


def test_a_line_without_end_is_not_kept(capfd: pytest.CaptureFixture[str]) -> None:
    count = LINE_BYTES_MAX * 5 // 2
    with Aside("from") as one:
        subprocess.run(["sh", "-c", f"head -c {count} /dev/zero | tr '\\0' x >&2 &"], stderr=one.theirs, check=True)
        one.start()
    parts = texts(capfd.readouterr().err)
    assert len(parts) > 1 and "".join(parts) == "x" * count


def test_ssh_may_say_much_before_the_answer(capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody else reads it so early, and it would wait for ever."""
    script = f"yes aside | head -n 40000 >&2; echo '{line_of(port=7, pid=8)}'"
    with Aside("from") as one, Ssh(("sh", "-c", 'eval "$5"', "ssh"), (), "host", script, one) as ssh:
        assert ssh.exchange(Answer, timeout_s=30).port == 7
    assert texts(capfd.readouterr().err) == ["aside"] * 40000


def test_who_holds_the_pipe_holds_nobody_up(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "LAST_S", 0.2)
    began_s = time.monotonic()
    with Aside("from") as one:
        held = os.dup(one.theirs)
        os.write(held, b"last\n")
    assert time.monotonic() - began_s < 10
    os.close(held)
    assert one._thread is not None
    one._thread.join(10)
    assert texts(capfd.readouterr().err) == ["last"]
