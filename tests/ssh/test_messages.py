"""The lines of the control channel."""

import json
from typing import Any

import pytest

from viamillipede.config import KEY_BYTES
from viamillipede.secret import fresh_key, parse_key, spell_key
from viamillipede.ssh.messages import Answer, Ending, NotUnderstood, Request, decode, encode

REQUEST = Request("rx", spell_key(fresh_key()), {"window": "1M"}, ["cat", "a\nb", "\udc80"], (1, 9), True, 3, True)


@pytest.mark.parametrize("message", [REQUEST, Answer(40000, 77), Answer(status=2, error="no"), Ending(8, "why\nthen")])
def test_there_and_back(message: Any) -> None:
    data = encode(message)
    assert data.startswith(b"\n") and data.endswith(b"\n") and data.count(b"\n") == 2
    assert decode(type(message), data.strip()) == message


def test_a_request_does_not_show_its_key() -> None:
    assert REQUEST.key not in repr(REQUEST)
    assert len(parse_key(REQUEST.key).data) == KEY_BYTES


@pytest.mark.parametrize("line", [b"", b"Welcome", b"{", b"[]", b"{}", b'{"port": 1}', b"\xff\xfe", b"1"])
def test_what_others_print_is_passed_over(line: bytes) -> None:
    assert decode(Answer, line) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"viamillipede": 2}, {"viamillipede": "1"}, {"port": "1"}, {"port": True}, {"port": None}, {"error": 7},
        {"status": [1]}, {"wire": 1.5},
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(NotUnderstood):
        decode(Answer, json.dumps({"viamillipede": 1, "kind": "answer", "port": 1, **changes}).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"words": {"a": 1}}, {"words": []}, {"command": "cat"}, {"command": [1]}, {"ports": [1]}, {"ports": ["1", "2"]},
        {"loopback": 1}, {"role": None},
    ],
)  # fmt: skip
def test_a_request_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(NotUnderstood):
        decode(Request, json.dumps({**json.loads(encode(REQUEST)), **changes}).encode())
    for missing in ("role", "key", "words", "command"):
        found = json.loads(encode(REQUEST))
        del found[missing]
        with pytest.raises(NotUnderstood):
            decode(Request, json.dumps(found).encode())


def test_members_that_are_new_are_passed_over() -> None:
    assert decode(Ending, b'{"viamillipede": 1, "kind": "ending", "status": 0, "new": []}') == Ending(0)


def test_an_answer_is_no_ending() -> None:
    assert decode(Ending, encode(Answer(port=1)).strip()) is None and decode(Answer, encode(Ending(0)).strip()) is None


def test_what_is_said_moves_no_cursor() -> None:
    found = decode(Ending, encode(Ending(7, "bad\x1b[2J\u202e\nworse")).strip())
    assert found is not None and found.error == "bad?[2J?\nworse"


def test_what_nobody_can_read_is_passed_over() -> None:
    assert decode(Answer, b"[" * 60_000) is None
