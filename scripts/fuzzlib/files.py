"""What is read from files: keys, phrases, configurations. Nothing but UsageError, which never repeats a secret."""

import contextlib
import os
import tempfile
from pathlib import Path

from viamillipede import config_files, secret
from viamillipede.errors import UsageError

from .script import Script

_folder: list[tempfile.TemporaryDirectory[str]] = []


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
    if not _folder:
        _folder.append(tempfile.TemporaryDirectory(prefix="fuzz-"))
    path = Path(_folder[0].name) / "file"
    content = script.rest()
    path.touch(mode=0o600)
    path.write_bytes(content)
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
    """Give the folder back."""
    while _folder:
        _folder.pop().cleanup()
