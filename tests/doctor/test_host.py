"""The questions that no file answers, asked of the machine that runs the tests."""

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.aio.drive import tcp_pair
from viamillipede.aio.descriptors import PIPE_BYTES
from viamillipede.doctor import check, host
from viamillipede.doctor.host import Host
from viamillipede.doctor.tcp_info import congestion_of, tcp_info

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@linux
def test_a_pipe_is_as_large_as_it_is_told() -> None:
    size = host.largest_pipe_bytes()
    assert size is not None and 4096 <= size <= PIPE_BYTES


@linux
def test_splice_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.splice_works()

    def refuse(*_: object) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "splice", refuse)
    assert not host.splice_works()
    monkeypatch.delattr(os, "splice")
    assert not host.splice_works()


@linux
def test_offloads_are_asked_of_the_driver() -> None:
    assert host.offloads("no-such-device") is None
    assert set(host.offloads("lo") or ()) in (set(), {"tso", "gso", "gro"})  # none where it may not be asked


def test_files_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("  4 x \n")
    (tmp_path / "numbers").write_text("4\t5\n")
    (tmp_path / "table").write_text("a: 1\nb c\nd : e: f\n")
    made = Host(root=tmp_path)
    assert (made.text("/text"), made.text("/none"), made.text("/")) == ("4 x", None, None)
    assert (made.numbers("/numbers"), made.numbers("/text"), made.number("/numbers")) == ([4, 5], None, 4)
    assert made.table("/table") == {"a": "1", "d": "e: f"} and made.table("/none") == {}
    assert made.names("/") == ["numbers", "table", "text"] and made.names("/none") == []


@linux
def test_a_connection_tells_of_itself() -> None:
    one, other = tcp_pair()
    with one, other:
        other.settimeout(5)
        one.send(bytes(1000))
        assert len(other.recv(1000, socket.MSG_WAITALL)) == 1000
        info = tcp_info(one)
        assert info is not None
        assert info.mss > 500 and info.path_mtu > info.mss and 0 < info.min_rtt_us <= 10**6
        assert (info.sent, info.sent_again) == (1, 0)
        assert congestion_of(one).isalnum()


def test_elsewhere_connections_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tcp_pair()
    with one, other:
        monkeypatch.setattr(sys, "platform", "freebsd14")
        assert tcp_info(one) is None
        monkeypatch.delattr(socket, "TCP_CONGESTION", raising=False)
        assert congestion_of(one) == ""


def test_this_machine_can_be_checked() -> None:
    sections = check(Host())
    assert len(sections) == 4 and all(findings for _, findings in sections)
