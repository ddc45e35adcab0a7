"""Keys and phrases: what is made, what is read, what is refused, and that none of it is shown."""

import copy
import dataclasses
import os
import pickle
import socket
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viamillipede import secret
from viamillipede.config import KEY_BYTES, SECRET_FILE_BYTES_MAX, DoctorConfig, RxConfig, Secret, TxConfig
from viamillipede.errors import LocalIOError, UsageError
from viamillipede.secret import (
    COMMENT,
    KEY_PREFIX,
    fresh_key,
    holds_key,
    parse_key,
    parse_key_lines,
    read_key_file,
    read_phrase_file,
    spell_key,
)

KEY = Secret(bytes(range(256 - KEY_BYTES, 256)))
TEXT = "viamillipede-key-1:4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8PvfYN"
PHRASE = "correct horse"
MAKE_ONE = "make one on one host with 'viamillipede key > FILE', and copy that file to the other"
TWO = "there is more than one key in it; leave the one that the other host has"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "the file"
    path.touch(0o600)
    return path


def refusal(read: Callable[[str], Secret], what: str) -> str:
    """The message with which it is refused; what may be secret is not in it, nor in the traceback."""
    with pytest.raises(UsageError) as caught:
        read(what)
    said = str(caught.value) + "".join(traceback.format_exception(caught.value))
    assert TEXT[len(KEY_PREFIX) : len(KEY_PREFIX) + 8] not in said
    assert PHRASE not in said
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is secret is not shown. -------------------------------------------------------------------------------
def test_a_secret_is_never_shown() -> None:
    for config in (TxConfig(key=KEY), RxConfig(phrase=KEY), DoctorConfig(key=KEY), KEY, [KEY]):
        for text in (repr(config), str(config), f"{config}", "%r" % (config,)):  # noqa: UP031
            assert "Secret(...)" in text
            assert "\\xe1" not in text and TEXT[20:30] not in text


def test_a_secret_stays_in_the_process() -> None:
    for away in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^a secret is not pickled, and not copied$"):
            away(KEY)
    with pytest.raises(TypeError):
        pickle.dumps(TxConfig(key=KEY))
    with pytest.raises(dataclasses.FrozenInstanceError):
        KEY.data = b""  # type: ignore[misc]
    assert dataclasses.replace(TxConfig(key=KEY), verbose=2).key is KEY


def test_secrets_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Secret(bytes(KEY.data)) == KEY != Secret(bytes(KEY_BYTES))
    assert KEY != KEY.data
    assert hash(Secret(bytes(KEY.data))) == hash(KEY)
    asked: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        asked.append((one, other))
        return True

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert Secret(b"a") == Secret(b"b")
    assert asked == [(b"a", b"b")], "not in constant time"


# The text of a key. -----------------------------------------------------------------------------------------
def test_the_text_of_a_key() -> None:
    assert spell_key(KEY) == TEXT
    assert parse_key(f" {TEXT}\t\r\n") == KEY


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES))
def test_a_key_is_read_as_it_is_written(data: bytes) -> None:
    assert parse_key(spell_key(Secret(data))).data == data


def test_keys_are_fresh() -> None:
    keys = {fresh_key() for _ in range(64)}
    assert len(keys) == 64
    assert {len(key.data) for key in keys} == {KEY_BYTES}
    together = b"".join(key.data for key in keys)
    assert len(set(together)) > 200, "that is no chance"


def test_every_typing_error_is_noticed() -> None:
    for place in range(len(KEY_PREFIX), len(TEXT)):
        for wrong in {"A", "z", "_"} - {TEXT[place]}:
            assert "checksum" in refusal(parse_key, TEXT[:place] + wrong + TEXT[place + 1 :])
    assert "checksum" in refusal(parse_key, TEXT[:40] + TEXT[41] + TEXT[40] + TEXT[42:])


@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_every_cut_is_noticed(cut: int) -> None:
    assert ("was this one cut?" if cut >= len(KEY_PREFIX) else "this is no key") in refusal(parse_key, TEXT[:cut])


@pytest.mark.parametrize("text", [f"{TEXT}A", TEXT.replace("_", "/"), f"{KEY_PREFIX} {TEXT[19:]}", f"{TEXT[:-1]}\xe9"])
def test_what_is_no_key(text: str) -> None:
    assert "48 letters, digits, - and _" in refusal(parse_key, text)


def test_a_key_of_another_version() -> None:
    assert "for another version" in refusal(parse_key, TEXT.replace("key-1", "key-2"))
    assert refusal(parse_key, TEXT.replace("key-1", "key-2")).endswith(f"; {MAKE_ONE}")
    assert refusal(parse_key, "/etc/key").endswith(f" and {MAKE_ONE}")


def test_a_key_is_recognised_with_and_without_its_prefix() -> None:
    bare = TEXT[len(KEY_PREFIX) :]
    for text in (TEXT, bare, f"--key={bare}", f"/etc/{bare}", f"key-1:{bare}", f"{'a' * 48} {bare}"):
        assert holds_key(text), text
    for text in ("", "a" * 48, f"{bare[:-1]}x", f"a{bare}", f"{bare}_", bare[1:], "host-" * 10):
        assert not holds_key(text), text


def test_the_lines_around_a_key() -> None:
    assert parse_key_lines(f"{COMMENT}\n\n{TEXT}".encode()) == KEY
    for lines, message in (
        (b"", f"no key in it; {MAKE_ONE}"),
        (COMMENT.encode(), f"no key in it; {MAKE_ONE}"),
        (f"{TEXT}\n{TEXT}".encode(), "leave the one that the other host has"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_key_lines(lines)


# Key files. -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "content",
    [
        f"{TEXT}\n",
        TEXT,
        f"# a comment \xe9\n\n  # two\n{TEXT}\n\n#end",
        f"{TEXT}\r\n",
        f"\ufeff{TEXT}\n",
        f"  {TEXT} \n",
    ],
)
def test_a_key_file(file: Path, content: str) -> None:
    file.write_bytes(content.encode())
    assert read_key_file(str(file)) == KEY


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", f"there is no key in it; {MAKE_ONE}"),
        ("# nothing\n\n", f"there is no key in it; {MAKE_ONE}"),
        (f"{TEXT}\n{TEXT}\n", TWO),
        (f"{TEXT}\nx", TWO),
        (f"key {TEXT}\n", "this is no key; one begins with"),
        (f"{TEXT[:-1]}\n", "a key has 48 letters"),
        (f"{TEXT[:-1]}x\n", "this key has a typing error"),
        ("\0" * 40, "this is no key"),
        ("\udcff" * 40, "this is no key"),
        ("#" * SECRET_FILE_BYTES_MAX + f"\n{TEXT}", "more than 4096 bytes are in it; this is something else"),
    ],
)
def test_a_key_file_that_is_refused(file: Path, content: str, message: str) -> None:
    file.write_bytes(os.fsencode(content))
    assert refusal(read_key_file, str(file)).startswith(f"{file}: {message}")


def test_the_longest_file(file: Path) -> None:
    file.write_text(f"{TEXT}\n{'#' * (SECRET_FILE_BYTES_MAX - len(TEXT) - 1)}")
    assert read_key_file(str(file)) == KEY


READERS = [(read_key_file, TEXT, KEY), (read_phrase_file, PHRASE, Secret(PHRASE.encode()))]


@pytest.mark.parametrize(("read", "content", "expected"), READERS)
def test_files_of_others(
    file: Path, read: Callable[[str], Secret], content: str, expected: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(content)
    for mode in (0o640, 0o620, 0o604, 0o602, 0o666):
        file.chmod(mode)
        said = f"{file}: others can read or write this file; say: chmod 600 '{file}'"
        assert refusal(read, str(file)) == said, oct(mode)
    for mode in (0o600, 0o400, 0o700):
        file.chmod(mode)
        assert read(str(file)) == expected
    if os.geteuid() == 0:
        os.chown(file, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert refusal(read, str(file)).startswith(f"{file}: this file is another user's")


def test_a_file_of_root_is_for_all(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(TEXT)
    if os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert read_key_file(str(file)) == KEY


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (read_key_file, read_phrase_file):
        assert refusal(read, str(tmp_path)) == f"{tmp_path}: this is a directory"
        assert refusal(read, "/dev/zero") == "/dev/zero: this is neither a regular file nor a pipe"
        assert refusal(read, "-") == "'-' is no file; say /dev/stdin, or ./- for a file of this name"
        assert refusal(read, "/dev/fd/999999999").startswith("/dev/fd/999999999: cannot be read: Bad file desc")
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to("loop")
        assert refusal(read, "loop").startswith("loop: cannot be read: ")
    assert refusal(read_key_file, "absent") == f"absent: no such file; {MAKE_ONE}"
    said = f"no such file. If that was the key itself, others could see it: {MAKE_ONE}, and say key FILE"
    assert refusal(read_key_file, TEXT[len(KEY_PREFIX) : -1] + "x") == said, "and is not repeated"
    assert refusal(read_phrase_file, PHRASE) == (
        "no such file. If that was the phrase itself, others could see it: "
        "choose another, and say phrase ask or phrase FILE"
    ), "and is not repeated"
    (tmp_path / "-").touch(0o600)
    (tmp_path / "-").write_text(TEXT)
    assert read_key_file("./-") == KEY


def ends(kind: str) -> tuple[int, int]:
    """Descriptors to read from and to write to."""
    if kind == "pipe":
        return os.pipe()
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_a_pipe_is_read_to_the_end_of_the_key(kind: str, form: str) -> None:
    ours, theirs = ends(kind)
    try:
        os.write(theirs, f"# a comment\n\n{TEXT}\n{PHRASE}\r\nthe stream".encode())
        assert read_key_file(form.format(ours)) == KEY, "though its other end stays open"
        assert read_phrase_file(form.format(ours)) == Secret(PHRASE.encode())
        assert os.read(ours, 100) == b"the stream"
        os.write(theirs, TEXT.encode())
        os.close(theirs)
        theirs = -1
        assert read_key_file(form.format(ours)) == KEY, "without a line end"
        assert "there is no key in it" in refusal(read_key_file, form.format(ours))
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)


def test_a_pipe_that_brings_no_end() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"#" * (SECRET_FILE_BYTES_MAX + 1))
    assert "more than 4096 bytes" in refusal(read_key_file, f"/dev/fd/{ours}")
    os.close(ours)
    os.close(theirs)


def test_a_file_that_was_opened_for_us_must_be_ours_alone(file: Path) -> None:
    file.write_text(TEXT)
    with file.open("rb") as opened:
        assert opened.read(5), "where it stands does not matter"
        assert read_key_file(f"/dev/fd/{opened.fileno()}") == KEY
        file.chmod(0o644)
        assert "chmod 600" in refusal(read_key_file, f"/dev/fd/{opened.fileno()}")


def test_a_pipe_with_a_name_must_be_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    held = os.open(path, os.O_RDWR)
    os.write(held, f"{TEXT}\n".encode() * 2)
    assert read_key_file(str(path)) == KEY
    path.chmod(0o622)
    assert "chmod 600" in refusal(read_key_file, str(path))
    os.close(held)


def test_no_descriptor_stays_open(file: Path) -> None:
    before = os.listdir("/dev/fd")
    file.write_text(TEXT)
    assert read_key_file(str(file)) == KEY
    file.chmod(0o644)
    refusal(read_key_file, str(file))
    refusal(read_key_file, "/dev/zero")
    assert os.listdir("/dev/fd") == before


# Phrases. ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (PHRASE, PHRASE),
        (f"{PHRASE}\nmore\n", PHRASE),
        (f"{PHRASE}\r\n", PHRASE),
        (f" {PHRASE} \n", f" {PHRASE} "),
        ("# no comment\n", "# no comment"),
        (f"\ufeff{PHRASE}\n", PHRASE),
        ("e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301", "\xe9" * 8),
        ("\uff21\uff22CDEFGH", "ABCDEFGH"),
    ],
)
def test_a_phrase(file: Path, content: str, phrase: str) -> None:
    file.write_bytes(content.encode())
    assert read_phrase_file(str(file)) == Secret(phrase.encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a phrase has at least 8 characters; take a longer one"),
        (b"\n" + PHRASE.encode(), "a phrase has at least 8 characters; take a longer one"),
        (b"sevenxx\n", "a phrase has at least 8 characters; take a longer one"),
        ("e\u0301e\u0301e\u0301e\u0301".encode(), "a phrase has at least 8 characters; take a longer one"),
        (PHRASE.encode() + b"\xff", "this is not UTF-8; save the file in that encoding"),
        (b"x" * (SECRET_FILE_BYTES_MAX + 1), "more than 4096 bytes are in it; this is something else"),
    ],
)
def test_a_phrase_that_is_refused(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    assert refusal(read_phrase_file, str(file)) == f"{file}: {message}"


@pytest.mark.parametrize("content", [f"{COMMENT}\n{TEXT}\n", f"{TEXT}\n", f"# mine\n\n{TEXT}", f"{COMMENT}\n"])
def test_a_key_file_is_no_phrase(file: Path, content: str) -> None:
    """Its first line is the same in all of them."""
    for text in (content, f"\ufeff{content}", content.replace("key-1", "key-2")):
        file.write_text(text)
        assert refusal(read_phrase_file, str(file)) == f"{file}: this is a key file; say key FILE"


# A fresh key on standard output; what is said at terminals is in test_cli_secrets. --------------------------
@pytest.fixture
def stdout(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Standard output goes to this file, which others can read."""
    file.chmod(0o644)
    fd = os.open(file, os.O_RDWR)
    monkeypatch.setattr(secret, "_STDOUT", fd)

    def put(text: str) -> int:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600, "before it is written"
        os.write(fd, text.encode())
        os.close(fd)
        monkeypatch.setattr(secret, "_STDOUT", 2)
        return 0

    monkeypatch.setattr(secret, "print_all", put)
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    return file


def test_a_fresh_key_is_for_its_owner(stdout: Path) -> None:
    assert secret.print_key() == 0
    comment, text = stdout.read_text().splitlines()
    assert comment == COMMENT == "# A key of viamillipede: whoever has it can be either side."
    assert parse_key(text) == read_key_file(str(stdout))


def test_a_fresh_key_that_others_could_read(stdout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    for fchmod, why in ((refuse, "Operation not permitted"), (lambda fd, mode: None, "its file system keeps no")):
        monkeypatch.setattr(os, "fchmod", fchmod)
        with pytest.raises(LocalIOError, match=f"^others can read the file of .* fails: {why}.*; no key was written$"):
            secret.print_key()
        assert stdout.read_text() == ""
    os.close(secret._STDOUT)


def test_a_fresh_key_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(LocalIOError, match=r"^standard output is closed"):
        secret.print_key()
