"""Configuration files: what is read, what is refused and how, and that what is shown can be read again."""

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viamillipede import config_files
from viamillipede.config_files import (
    FILE_BYTES_MAX,
    Setting,
    configurable,
    read,
    said,
    sample,
    show,
)
from viamillipede.errors import UsageError
from viamillipede.places import SYSTEM_FILE, places
from viamillipede.settings import FIELDS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the configuration is; there is none yet."""
    return tmp_path / "viamillipede.conf"


def texts(file: Path, content: str | bytes) -> dict[str, str]:
    """What a file with this content says, by word."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {setting.word: setting.text for setting in read([file])}


def refusal(file: Path, content: str | bytes) -> str:
    """Why a file with this content is refused; without the path in front."""
    with pytest.raises(UsageError) as error:
        texts(file, content)
    message = str(error.value)
    assert message.startswith(f"{file}:")
    assert "\n" not in message
    return message.removeprefix(f"{file}:")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", {}),
        ("\n  \n# threads 16\n\t#\n", {}),
        ("threads 16", {"threads": "16"}),
        ("  threads\t16  \r\nwindow=1G\r\n", {"threads": "16", "window": "1G"}),
        ("threads = 16\n--window=1G\n--frame 64k\n", {"threads": "16", "window": "1G", "frame": "64k"}),
        ("chaos-kind all", {"chaos-kind": "all"}),
        ("checksum", {"checksum": "yes"}),
        ("checksum yes\nsyslog off\n", {"checksum": "yes", "syslog": "off"}),
        ("checksums = no", {"checksum": "no"}),
        ("\ufeffthreads 16", {"threads": "16"}),
        ("threads 16 # as many as it has\nchecksum# no comment, and no word", None),
        ('threads 16 # as "many" as it has\n', {"threads": "16"}),
        ("checksum # always\n", {"checksum": "yes"}),
        ('checksum # "always"\n', {"checksum": "yes"}),
        ("log /var/log/a#b\n", {"log": "/var/log/a#b"}),
        ("log /var/log/a b\n", {"log": "/var/log/a b"}),
        ('log "/var/log/a #b"', {"log": "/var/log/a #b"}),
        ('log = "/var/log/\\"a\\" \\u00e9" # quoted', {"log": '/var/log/"a" é'}),
        ('checkphrase " x# "', {"checkphrase": " x# "}),
        ("log a=b", {"log": "a=b"}),
        ("log = a = b", {"log": "a = b"}),
        ("limit 50M", {"limit": "50M"}),
        ("names db*", {"names": "db*"}),
        ("bind ::1", {"bind": "::1"}),
    ],
)
def test_what_a_file_says(file: Path, content: str, expected: dict[str, str] | None) -> None:
    if expected is None:
        assert refusal(file, content).startswith("2: unknown word 'checksum#'")
    else:
        assert texts(file, content) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("threads", "1: 'threads' needs a value after it"),
        ("\n\nthreads =", "3: 'threads' needs a value after it"),
        ("threads # 16", "1: 'threads' needs a value after it"),
        ('threads ""', "1: 'threads' needs a value after it"),
        ("threads = # 16", "1: 'threads' needs a value after it"),
        ("threads 0", "1: threads: '0' is not a whole number from 1 to 1024, nor auto"),
        ("window 16\n", "1: window: '16' is not a size from"),
        ("checksum maybe", "1: checksum: 'maybe' is neither yes nor no"),
        ("thread 16", "1: unknown word 'thread'; did you mean 'threads'?"),
        ("chaos_kind all", "1: unknown word 'chaos_kind'; did you mean 'chaos-kind'?"),
        ("xyzzy 16", "1: unknown word 'xyzzy'; viamillipede --help lists them"),
        ("#\nthreads 1\nwindow 1G\nthreads 2", "4: 'threads' was given in line 2 already"),
        ("checksum\nchecksums", "2: 'checksum' was given in line 1 already"),
        ("via eth0", "1: 'via' belongs on the command line"),
        ("weight 2", "1: 'weight' belongs on the command line"),
        ("tx host 8834", "1: 'tx' belongs on the command line"),
        ("-- tar x", "1: '--' belongs on the command line"),
        ("help", "1: unknown word 'help'"),
        ("--show-config", "1: unknown word 'show-config'"),
        ("checksum = # yes", "1: 'checksum' needs a value after it"),
        ("= 16", "1: '= 16' is no word with its value"),
        ("threads\x0016", "1: 'threads\\x0016' is no word with its value"),
        (b"threads 1\n# fine\nlog \xff\n", "3: this is not UTF-8"),
        ('log "a', '1: "a is not one string in double quotes'),
        ('log "a" b', '1: "a" b is not one string in double quotes'),
        ('log "\\q"', '1: "\\q" is not one string in double quotes'),
        ('checkphrase "\\ud800ab"', '1: "\\ud800ab" is not one string'),
        ('log "\\u0000"', '1: "\\u0000" is not one string'),
        ("[section]", "1: unknown word '[section]'"),
        (b"# 9 bytes\n" * (FILE_BYTES_MAX // 10) + b"#" * 7, " a configuration is at most 64 KiB long"),
    ],
)
def test_what_is_refused(file: Path, content: str | bytes, words: str) -> None:
    assert words in refusal(file, content)


def test_a_file_of_the_greatest_length_is_read(file: Path) -> None:
    content = b"# 9 bytes\n" * (FILE_BYTES_MAX // 10) + b"#" * (FILE_BYTES_MAX % 10)
    assert texts(file, content) == {}


def test_later_files_win(tmp_path: Path) -> None:
    first, second, absent = tmp_path / "first", tmp_path / "second", tmp_path / "absent" / "file"
    first.write_text("threads 1\nwindow 1G\n")
    second.write_text("\nthreads 2")
    settings = read([first, absent, second, first / "no folder"])
    assert settings[0] == Setting("threads", "1", first, 1)
    assert said(settings) == {"threads": ("2", f"{second}:2"), "window": ("1G", f"{first}:2")}


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    fifo, folder = tmp_path / "fifo", tmp_path / "folder"
    os.mkfifo(fifo)
    folder.mkdir()
    with pytest.raises(UsageError, match=rf"^{fifo}: this is no regular file; a file with"):
        read([fifo])
    with pytest.raises(UsageError, match=rf"^{folder}: this is a directory; a file with"):
        read([folder])
    with pytest.raises(UsageError, match="at most 64 KiB"):
        read([Path("/dev/zero")])
    assert read([Path(os.devnull)]) == []


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UsageError, match=rf"^{loop}: cannot be read: .*; mend its permissions or remove it$"):
        read([loop])


@pytest.mark.parametrize("closed", [True, False])
def test_a_folder_of_somebody_else_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    monkeypatch.setattr(os, "access", lambda path, mode: not closed and path == tmp_path)
    if closed:
        assert read([tmp_path / "config"]) == []
    else:
        with pytest.raises(UsageError, match="config: cannot be read: Permission denied; mend its permissions"):
            read([tmp_path / "config"])


@pytest.mark.parametrize(
    ("environ", "user"),
    [
        ({}, None),
        ({"HOME": "/h"}, "/h/.config/viamillipede/config"),
        ({"HOME": ""}, None),
        ({"HOME": "relative"}, None),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/viamillipede/config"),
        ({"XDG_CONFIG_HOME": "/x"}, "/x/viamillipede/config"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": "x"}, "/h/.config/viamillipede/config"),
        ({"HOME": "/h", "XDG_CONFIG_HOME": ""}, "/h/.config/viamillipede/config"),
    ],
)
def test_where_the_files_are(environ: dict[str, str], user: str | None) -> None:
    assert places(environ) == [SYSTEM_FILE, *([Path(user)] if user else [])]


# What is shown. ---------------------------------------------------------------------------------------------


def test_all_words_are_shown(file: Path) -> None:
    shown = show({"threads": ("8", "/etc/x:3"), "checksum": ("yes", "VIAMILLIPEDE_CHECKSUM")})
    words = [re.sub("^# ", "", line).split()[0] for line in shown.splitlines()]
    assert sorted(words) == sorted(FIELDS)
    table = {line.partition("  #")[0].strip(): line.rpartition("# ")[2] for line in shown.splitlines()}
    assert table["threads 8"] == "/etc/x:3"
    assert table["checksum yes"] == "VIAMILLIPEDE_CHECKSUM"
    assert table["# force no"] == table["# window 64M"] == "default"
    assert table["# wait DURATION"] == "not said"
    assert texts(file, shown) == {"threads": "8", "checksum": "yes"}
    assert texts(file, show({})) == {}


text = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)


@given(
    log=text, where=st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1), phrase=st.binary(min_size=4)
)
def test_what_is_shown_can_be_read_again(
    tmp_path_factory: pytest.TempPathFactory, log: str, where: str, phrase: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "shown.conf"
    word = os.fsdecode(bytes(byte or 1 for byte in phrase[:4]))
    in_force = {"log": (log, where), "checkphrase": (word, "command line"), "threads": ("auto", "x:1")}
    assert texts(file, show(in_force)) == {name: text for name, (text, _) in in_force.items()}


def test_the_sample_says_nothing_until_it_is_uncommented(file: Path) -> None:
    assert texts(file, sample()) == {}
    lines = [line[1:] for line in sample().splitlines() if re.match("#[a-z]", line)]
    assert [line.split()[0] for line in lines] == [option.word for option in configurable()]
    defaults = [line for line in lines if not re.search(r"[A-Z]{4}|NAME$", line)]
    assert len(defaults) > len(lines) // 2
    assert len(texts(file, "\n".join(defaults))) == len(defaults)
    assert max(len(line) for line in sample().splitlines()) <= 120


def test_each_word_of_a_file_is_a_word_of_the_program() -> None:
    assert {option.word for option in configurable()} == set(FIELDS)
    assert config_files.said([]) == {}
