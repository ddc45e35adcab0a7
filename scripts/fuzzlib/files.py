"""What is read from files: keys, phrases, configurations. Nothing but UsageError, which never repeats a secret."""

import contextlib
import os
from pathlib import Path

from viamillipede import config_files, secret
from viamillipede.errors import UsageError

from .script import Script

_file: list[int] = []  # a descriptor of memory: nothing is left behind


def run(data: bytes) -> None:
    """One file."""
    script = Script(data)
    what = script.byte() % 4
    if what == 0:
        with contextlib.suppress(UsageError):
            text = script.rest().decode("utf-8", "replace")
            if script.byte() % 2:
                text = secret.KEY_PREFIX + text
            assert secret.spell_key(secret.parse_key(text)) == text.strip()
        return
    if not _file:
        _file.append(os.memfd_create("fuzz"))
        os.fchmod(_file[0], 0o600)
    path = Path(f"/proc/self/fd/{_file[0]}")
    os.truncate(path, 0)
    os.pwrite(_file[0], script.rest(), 0)
    try:
        if what == 1:
            assert len(secret.read_key_file(os.fspath(path)).data) == secret.KEY_BYTES
        elif what == 2:
            assert secret.read_phrase_file(os.fspath(path)).data
        else:
            config_files.said(config_files.read([path]))
    except UsageError as error:
        assert str(error).startswith(os.fspath(path)), f"which file? {error}"
        assert "\n" not in str(error), f"one line: {error!r}"


def close() -> None:
    """Give the descriptor back."""
    while _file:
        os.close(_file.pop())
