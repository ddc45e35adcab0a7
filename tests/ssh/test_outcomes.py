"""One status of two: how it went here, and what ssh brings of the far end, which a shell plays."""

import os
import time

import pytest

from tests.e2e.helpers import eventually
from tests.ssh.helpers import line_of
from viamillipede.config import Address
from viamillipede.errors import (
    Exit,
    Failure,
    Interrupted,
    LocalIOError,
    NoContact,
    PeerLost,
    RemoteFailed,
)
from viamillipede.ssh import near
from viamillipede.ssh.control import Ended, Ssh
from viamillipede.ssh.messages import Answer, Ending
from viamillipede.ssh.near import Outcome, combine
from viamillipede.ssh.words import read

ASKED = read(["to", "host", "--", "cat"], {}, {})
ADDRESSES = (Address("192.0.2.1", 40000),)


def played(script: str) -> Ssh:
    """ssh, whose far end is this; it is the last argument, behind options that the shell takes for its own name."""
    return Ssh(("sh", "-c", 'eval "$5"', "ssh"), (), "host", script)


def combined(script: str, failure: Failure | None = None) -> int:
    """What comes of it."""
    status = 0 if failure is None else int(failure.exit_status)
    with played(script) as ssh:
        return combine(ASKED, Outcome(status, failure), ssh, ADDRESSES)


def said(status: int, error: str = "") -> str:
    """A far end that ends so."""
    return f"echo '{line_of(kind='ending', status=status, error=error)}'; cat >/dev/null; exit {status}"


def test_both_ends_are_content() -> None:
    assert combined(said(0)) == Exit.COMPLETE


def test_a_far_end_that_waits_for_our_end_is_let_go_before_it_is_judged() -> None:
    began_s = time.monotonic()
    assert combined("sleep 0.2; " + said(0)) == Exit.COMPLETE
    assert time.monotonic() - began_s < 3


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (said(7, "the disk is full"), "host: the far end failed: the disk is full"),
        (said(7), "host: the far end failed: status 7"),
        ("exit 255", "the stream is whole here, but the far end was killed, or ssh lost its connection"),
        ("kill -9 $$", "the stream is whole here, but the far end is lost: ssh was ended by signal 9"),
        ("exit 3", "the far end ended with status 3 and did not say why"),
        ("exit 0", "the far end did not say how it ended"),
    ],
)
def test_a_far_end_that_failed_all_the_same(script: str, expected: str) -> None:
    with pytest.raises(RemoteFailed, match=expected.replace(".", r"\.")) as failed:
        combined(script)
    assert failed.value.exit_status == Exit.REMOTE_FAILED


@pytest.mark.parametrize(
    ("script", "failure", "expected"),
    [
        (
            said(7, "the disk is full"),
            PeerLost("gone"),
            "viamillipede to: host: the far end failed: the disk is full\n",
        ),
        ("exit 255", PeerLost("gone"), "viamillipede to: host: the far end was killed, or ssh lost its connection\n"),
        (said(8, "ours"), LocalIOError("the reader went away"), ""),
        (said(7, "the disk is full"), RemoteFailed("the disk is full"), ""),
        (said(143, "terminated"), PeerLost("gone"), ""),
        ("exit 255", Interrupted("interrupted"), ""),
    ],
)
def test_what_is_known_already_is_not_said_again(
    capfd: pytest.CaptureFixture[str], script: str, failure: Failure, expected: str
) -> None:
    with pytest.raises(type(failure)):
        combined(script, failure)
    assert capfd.readouterr() == ("", expected)


@pytest.mark.parametrize("script", ["exit 255", "kill -15 $$", "sleep 0.3; exit 255"])
def test_an_ssh_that_ended_before_we_let_it_go(script: str) -> None:
    """The far end was ended for that, and has said so on its legs."""
    expected = r"^ssh to host ended(, by signal 15,)? in the middle of the transfer; it carries the control channel$"
    with pytest.raises(PeerLost, match=expected) as failed:
        combined(script, RemoteFailed("the receiver gave up: terminated"))
    assert failed.value.exit_status == Exit.PEER_LOST


@pytest.mark.parametrize("script", ["exit 3", said(7), said(143), f"cat >/dev/null; {said(7)}"])
def test_a_far_end_that_gave_up_by_itself(script: str) -> None:
    with pytest.raises(RemoteFailed):
        combined(script, RemoteFailed("the receiver gave up: the disk is full"))


def test_a_far_end_that_gave_up_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends by itself; an ssh that ends only because we let it go tells nothing."""
    monkeypatch.setattr(near, "ENDED_S", 0.3)
    with pytest.raises(RemoteFailed):
        combined("cat >/dev/null; exit 255", RemoteFailed("the receiver gave up: the disk is full"))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 255", "host: the far end was killed, or ssh lost its connection"),
        (said(7, "no room").replace("cat >/dev/null;", ""), "host: the far end failed: no room"),
    ],
)
def test_an_ssh_that_ended_before_the_contact(capfd: pytest.CaptureFixture[str], script: str, expected: str) -> None:
    with played(script) as ssh:
        eventually(ssh.has_ended, "its end")
        assert combine(ASKED, Outcome(3, NoContact("nobody")), ssh, ADDRESSES) == Exit.NO_CONTACT
    assert capfd.readouterr() == ("", f"viamillipede to: {expected}\n")


def test_a_hint_that_was_given_is_not_given_again(capfd: pytest.CaptureFixture[str]) -> None:
    with played(said(143)) as ssh:
        assert combine(ASKED, Outcome(3, NoContact("nobody"), hinted=True), ssh, ADDRESSES) == Exit.NO_CONTACT
    assert capfd.readouterr() == ("", "")


def test_a_port_that_does_not_answer(capfd: pytest.CaptureFixture[str]) -> None:
    assert combined(said(143), NoContact("nobody")) == Exit.NO_CONTACT
    out, err = capfd.readouterr()
    assert out == ""
    assert "host is there, but not its port 40000 from here, as behind a firewall; say 'tunnel'" in err


def test_an_ssh_that_does_not_end_is_ended() -> None:
    """It minds neither the end of its input nor SIGTERM."""
    began_s = time.monotonic()
    with played("trap '' TERM; while :; do sleep 0.1; done") as ssh:
        pid = ssh.pid
        with pytest.raises(TimeoutError):
            ssh.exchange(Ending, timeout_s=0.2)
        assert ssh.end(0.1) == -9
    assert time.monotonic() - began_s < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_answer_that_comes_while_much_is_being_written() -> None:
    """Neither waits for the other."""
    ending = line_of(kind="ending", status=3)
    script = f"echo noise; echo '{line_of(port=7, pid=8)}'; head -c 4000000 | wc -c; echo '{ending}'; exit 3"
    with played(script) as ssh:
        answer = ssh.exchange(Answer, bytes(1))
        assert (answer.port, answer.pid) == (7, 8)
        assert ssh.exchange(Ending, bytes(4_000_000), timeout_s=30) == Ending(3)
        with pytest.raises(Ended) as ended:
            ssh.exchange(Ending, timeout_s=30)
        assert ended.value.status == 3
