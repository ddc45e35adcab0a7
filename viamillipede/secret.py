"""Keys and phrases: how they are made, written and read.

A key is KEY_BYTES of chance. Its text is one line, KEY_PREFIX and 48 characters of base64url (RFC 4648): the key,
and behind it the first CHECKSUM_BYTES of SHA-256 over KEY_PREFIX and the key, so that a typo or a line that was cut
is noticed. In a key file, lines that are empty or begin with # may stand around it.

A phrase is what people type: the first line of a file, or the answer to a question. It is normalised (NFKC), since
keyboards differ in how they compose a letter, and is UTF-8 from then on.

What is read here is secret: no message repeats any of it.
"""

import contextlib
import os
import re
import shlex
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from viamillipede.config import KEY_BYTES, KEY_PREFIX, PHRASE_CHARACTERS_MIN, SECRET_FILE_BYTES_MAX, Secret
from viamillipede.errors import LocalIOError, UsageError
from viamillipede.standard_streams import PROGRAM, complain, print_all

__all__ = [  # the first three are of `config`, on which the protocol may rest
    "KEY_BYTES", "KEY_PREFIX", "Secret",
    "ask_phrase", "fresh_key", "holds_key", "parse_key", "parse_key_lines", "print_key", "read_key_file",
    "read_phrase_file", "spell_key",
]  # fmt: skip

CHECKSUM_BYTES = 4  # with the key 36 bytes, which base64 writes without padding
MAKE_ONE = "make one on one host with 'viamillipede key > FILE', and copy that file to the other"
COMMENT = "# A key of viamillipede: whoever has it can be either side."
PHRASE_TRIES = 3  # of who types it
_ENDING = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)  # SIGINT is a KeyboardInterrupt already
_STDOUT = 1
_KEY = re.compile(re.escape(KEY_PREFIX) + "[A-Za-z0-9_-]{48}")
_KEY_NAME = "viamillipede-key-"
_ANY_KEY = re.compile(f"{_KEY_NAME}[0-9]+:")
_BARE_KEY = re.compile("(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{48}(?![A-Za-z0-9_-])")
_DESCRIPTOR = re.compile("/(?:dev|proc/self)/fd/([0-9]{1,9})")
_STANDARD_INPUT = "/dev/stdin"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SHARED = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


# Keys. ------------------------------------------------------------------------------------------------------
def fresh_key() -> Secret:
    """A key of the system's best chance."""
    import secrets

    return Secret(secrets.token_bytes(KEY_BYTES))


def spell_key(key: Secret) -> str:
    """The key's text, without a line end."""
    import base64

    return KEY_PREFIX + base64.urlsafe_b64encode(key.data + _checksum(key.data)).decode()


def parse_key(text: str) -> Secret:
    """The key with this text, which may have blanks around it. Raises UsageError."""
    import base64

    text = text.strip()
    if not _KEY.fullmatch(text):
        if text.startswith(KEY_PREFIX):
            raise UsageError(f"a key has 48 letters, digits, - and _ behind {KEY_PREFIX!r}; was this one cut?")
        if _ANY_KEY.match(text):
            raise UsageError(f"this key is for another version of viamillipede; {MAKE_ONE}")
        raise UsageError(f"this is no key; one begins with {KEY_PREFIX!r}, and {MAKE_ONE}")
    data = base64.urlsafe_b64decode(text.removeprefix(KEY_PREFIX))
    key, checksum = data[:KEY_BYTES], data[KEY_BYTES:]
    if checksum != _checksum(key):
        raise UsageError("this key has a typing error: its checksum does not fit; copy it again")
    return Secret(key)


def holds_key(text: str) -> bool:
    """Whether a key stands in it, with its prefix or without: then it must not be repeated."""
    return KEY_PREFIX in text or any(map(_is_bare_key, _BARE_KEY.findall(text)))


def _is_bare_key(text: str) -> bool:
    try:
        parse_key(KEY_PREFIX + text)
    except UsageError:
        return False
    return True


def _checksum(key: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(KEY_PREFIX.encode() + key).digest()[:CHECKSUM_BYTES]


def read_key_file(path: str) -> Secret:
    """The only key in the file. Raises UsageError, which begins with the path, for a file that is unfit or shared."""
    missing = f"{path}: no such file; {MAKE_ONE}"
    if _BARE_KEY.search(path):  # perhaps with a typing error
        missing = f"no such file. If that was the key itself, others could see it: {MAKE_ONE}, and say key FILE"
    data = _read(path, missing, lambda data: bool(_lines_with_keys(data)))
    try:
        return parse_key_lines(data)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def parse_key_lines(data: bytes) -> Secret:
    """The only key in what `print_key` prints: there may be comments and empty lines as well. Raises UsageError."""
    found = _lines_with_keys(data)
    if not found:
        raise UsageError(f"there is no key in it; {MAKE_ONE}")
    if len(found) > 1:
        raise UsageError("there is more than one key in it; leave the one that the other host has")
    return parse_key(found[0].decode("utf-8", "replace"))


def _lines_with_keys(data: bytes) -> list[bytes]:
    """The lines that say something."""
    lines = data.removeprefix(b"\xef\xbb\xbf").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith(b"#")]


def print_key() -> int:
    """A fresh key on standard output, for its owner only where that is a file. Raises LocalIOError."""
    if sys.stdout is None:
        raise LocalIOError("standard output is closed; send the key to a file: viamillipede key > FILE")
    _close_to_others(_STDOUT)
    status = print_all(f"{COMMENT}\n{spell_key(fresh_key())}\n")
    if os.isatty(_STDOUT):
        complain(PROGRAM, "this is a secret, and stands on the screen; 'viamillipede key > FILE' keeps it in a file")
    return status


def _close_to_others(fd: int) -> None:
    """Take from group and others what they may do with a regular file. Raises LocalIOError."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or not found.st_mode & _OTHERS:
        return
    why = "its file system keeps no permissions"
    try:
        os.fchmod(fd, 0o600)
        if not os.fstat(fd).st_mode & _OTHERS:
            return
    except OSError as error:
        why = str(error.strerror)
    raise LocalIOError(f"others can read the file of standard output, and chmod 600 fails: {why}; no key was written")


# Phrases. ---------------------------------------------------------------------------------------------------
def read_phrase_file(path: str) -> Secret:
    """The phrase in the first line of the file. Raises UsageError, which begins with the path if the file exists."""
    # Without the name, which may be a phrase.
    missing = (
        "no such file. If that was the phrase itself, others could see it: "
        "choose another, and say phrase ask or phrase FILE"
    )
    data = _read(path, missing, lambda data: True).removeprefix(b"\xef\xbb\xbf")
    if _KEY_NAME.encode() in data or data.startswith(COMMENT.encode()):  # that is the first line of each
        raise UsageError(f"{path}: this is a key file; say key FILE")
    line = data.partition(b"\n")[0]
    try:
        return _phrase(line.removesuffix(b"\r").decode())
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is not UTF-8; save the file in that encoding") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def ask_phrase() -> Secret:
    """The phrase that is typed at the terminal, unseen. Raises UsageError, and KeyboardInterrupt for Ctrl-C.

    What is too short is asked for again, PHRASE_TRIES times in all.
    """
    import getpass
    import warnings

    absent = "there is no terminal to ask at; write the phrase into a file and say phrase FILE"
    prompt = f"{PROGRAM}: phrase, {PHRASE_CHARACTERS_MIN} characters at least, the same at both ends (not shown): "
    before = ""
    try:
        with warnings.catch_warnings(), _terminal_restored():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would read from what is no terminal
            for tried in range(1, PHRASE_TRIES + 1):
                try:
                    return _phrase(getpass.getpass(before + prompt))
                except UsageError as error:
                    if tried == PHRASE_TRIES:
                        raise
                    before = f"{PROGRAM}: {error}\n"
            raise AssertionError("the last one is returned or raised")
    except (OSError, getpass.GetPassWarning):
        raise UsageError(absent) from None
    except EOFError:
        raise UsageError("no phrase was typed") from None


@contextlib.contextmanager
def _terminal_restored() -> Iterator[None]:
    """Signals that would end the process at once end what is inside first, which restores the terminal, and then it."""
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if len(arrived) == 1:  # a second one must not disturb what the first one has begun
            raise KeyboardInterrupt

    ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]  # not what nohup ignores
    for number in ours:
        signal.signal(number, note)
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # it may be the terminal that has gone
            _end_line()
        raise
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        if arrived:
            os.kill(os.getpid(), arrived[0])


def _end_line() -> None:
    """What is said next at the terminal begins a line. Raises OSError."""
    fd = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        os.write(fd, b"\n")
    finally:
        os.close(fd)


def _phrase(text: str) -> Secret:
    """The phrase as both sides have it. Raises UsageError."""
    import unicodedata

    normal = unicodedata.normalize("NFKC", text)
    if len(normal) < PHRASE_CHARACTERS_MIN:
        raise UsageError(f"a phrase has at least {PHRASE_CHARACTERS_MIN} characters; take a longer one")
    try:
        return Secret(normal.encode())
    except UnicodeEncodeError:
        raise UsageError("the phrase is not UTF-8; use a terminal in that encoding, or a file") from None


# Files. -----------------------------------------------------------------------------------------------------
def _read(path: str, missing: str, is_enough: Callable[[bytes], bool]) -> bytes:
    """The contents of a file that is ours alone; of a pipe, its lines until they are enough, for it may stay open.

    Raises UsageError: `missing` where there is nothing of this name.
    """
    try:
        fd, given = _open(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(missing) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        kind = os.fstat(fd).st_mode
        is_pipe = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
        if not (is_pipe and given):  # who could read the name of a pipe could take the key out of it
            _check_owner(path, os.fstat(fd))
        data = _until(fd, is_enough) if is_pipe else _whole(fd)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    if len(data) > SECRET_FILE_BYTES_MAX:
        raise UsageError(f"{path}: more than {SECRET_FILE_BYTES_MAX} bytes are in it; this is something else")
    return data


def _open(path: str) -> tuple[int, bool]:
    """A descriptor to read from, and whether the caller opened it for us. Raises OSError, UsageError."""
    if path == "-":
        raise UsageError("'-' is no file; say /dev/stdin, or ./- for a file of this name")
    descriptor = _DESCRIPTOR.fullmatch("/dev/fd/0" if path == _STANDARD_INPUT else path)
    if descriptor:
        return os.dup(int(descriptor[1])), True  # a socket could not be opened by this name
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY), False


def _check_owner(path: str, found: os.stat_result) -> None:
    """Raises UsageError for what is no file, or not for us alone."""
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISFIFO(found.st_mode):
        what = "a directory" if stat.S_ISDIR(found.st_mode) else "neither a regular file nor a pipe"
        raise UsageError(f"{path}: this is {what}")
    if found.st_uid not in (os.geteuid(), 0):
        raise UsageError(f"{path}: this file is another user's, who could change it; copy it to one of your own")
    if found.st_mode & _SHARED:
        raise UsageError(f"{path}: others can read or write this file; say: chmod 600 {shlex.quote(path)}")


def _whole(fd: int) -> bytes:
    """All of it, or one byte more than it may have. Raises OSError."""
    data = b""
    while len(data) <= SECRET_FILE_BYTES_MAX and (
        more := os.pread(fd, SECRET_FILE_BYTES_MAX + 1 - len(data), len(data))
    ):
        data += more
    return data


def _until(fd: int, is_enough: Callable[[bytes], bool]) -> bytes:
    """Whole lines, and nothing of what follows them, which may be for somebody else. Raises OSError."""
    data = b""
    while len(data) <= SECRET_FILE_BYTES_MAX and (more := os.read(fd, 1)):
        data += more
        if more == b"\n" and is_enough(data):
            break
    return data
