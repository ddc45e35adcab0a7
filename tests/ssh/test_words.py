"""What a command line with `to` or `from` asks for, here and over there."""

import re
from pathlib import Path

import pytest

from viamillipede.cli import main
from viamillipede.config import DIRECT_WAIT_US_DEFAULT, MIB, S_US, Address, RxConfig, TxConfig
from viamillipede.errors import UsageError
from viamillipede.ssh.words import WORDS, dial_at, is_ours, is_word_of, read, read_far
from viamillipede.usage_text import options
from viamillipede.words import USAGE, known_words

CAT = ("--", "cat")
SAMPLES = {
    "via": "lo", "weight": "1", "limit": "1M", "threads": "2", "congestion": "cubic", "checkphrase": "abcd",
    "window": "1M", "frame": "64k", "digest": "xxh3", "bind": "::1", "wait": "1s", "regroup": "1s", "outage": "1s",
    "name": "x", "names": "x", "streams": "2", "interval": "1s", "size": "1M", "metrics": "1", "log": "f",
    "verbose": "1", "chaos": "0", "chaos-kind": "close", "key": "f", "phrase": "f",
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("to host -- cat", True),
        ("threads 8 from host -- cat", True),
        ("--threads 8 --checksum to host", True),
        ("ssh-command to from host", True),
        ("name to rx 8834", False),
        ("tx to 8834", False),
        ("rx 8834 -- cat to", False),
        ("doctor from 1", False),
        ("-- to", False),
        ("", False),
    ],
)
def test_whose_line_it_is(line: str, ours: bool) -> None:
    assert is_ours(line.split()) is ours


def test_to() -> None:
    asked = read(["to", "me@host", "threads", "8", *CAT, "a b"], {}, {})
    assert (asked.verb, asked.dest, asked.command, asked.far_role) == ("to", "me@host", ("cat", "a b"), "rx")
    assert isinstance(asked.config, TxConfig)
    assert (asked.config.threads, asked.config.command, asked.config.wait_us) == (8, (), DIRECT_WAIT_US_DEFAULT)
    assert asked.far_words == {}
    assert (asked.ssh, asked.far_command, asked.ports, asked.tunnel, asked.bring) == (
        ("ssh",),
        "",
        (0, 0),
        False,
        False,
    )
    assert dial_at(asked, "192.0.2.1", 40000) == (Address("192.0.2.1", 40000),)


def test_from() -> None:
    asked = read(["limit", "5M", "from", "host", "--threads=8", "force", *CAT], {}, {})
    assert isinstance(asked.config, RxConfig)
    assert asked.config.force
    assert asked.far_role == "tx"
    assert asked.far_words == {"limit": "5M", "threads": "8"}


def test_what_both_ends_must_know() -> None:
    words = "window 4M checksum digest sha256 checkphrase abcd regroup 3s outage 9m size 7M congestion cubic"
    for verb in ("to", "from"):
        asked = read([verb, "host", *words.split(), *CAT], {}, {})
        assert asked.config.window_bytes == 4 * MIB
        assert asked.config.checksum
        far = read_far(asked.far_role, asked.far_words, {}, {})
        for name in ("window_bytes", "checksum", "digest", "checkphrase", "regroup_us", "outage_us", "size_bytes"):
            assert getattr(far, name) == getattr(asked.config, name), name
        assert (far.congestion, asked.config.congestion) == ("cubic", "cubic")


def test_what_is_for_us_alone() -> None:
    words = "verbose 3 json interval 2s metrics 9100 log file wait 7s bind localhost"
    asked = read(["from", "host", *words.split(), *CAT], {}, {})
    assert asked.far_words == {}
    assert (asked.config.wait_us, asked.config.bind, asked.config.json) == (7 * S_US, "localhost", True)


def test_other_addresses() -> None:
    line = "limit 9M to host via lo limit 2M also other:5000 weight 2 via lo also [2001:db8::1] also ::1 also [::2]:7"
    asked = read([*line.split(), *CAT], {}, {})
    assert isinstance(asked.config, TxConfig)
    assert asked.config.limit_bytes == 9 * MIB
    assert dial_at(asked, "h", 40000) == (
        Address("h", 40000, via="lo", limit_bytes=2 * MIB), Address("other", 5000, via="lo", weight=2),
        Address("2001:db8::1", 40000), Address("::1", 40000), Address("::2", 7),
    )  # fmt: skip


def test_our_own_words() -> None:
    words = ["port", "60000-60010", "ssh-command", "ssh -p '2 2'", "far-command=x", "bring-file", "f"]
    asked = read(["to", "host", *(f"--{word}" if "=" in word else word for word in words), *CAT], {}, {})
    assert (asked.ports, asked.tunnel, asked.ssh) == ((60000, 60010), False, ("ssh", "-p", "2 2"))
    assert (asked.far_command, asked.bring, asked.bring_file) == ("x", True, "f")
    assert read(["to", "host", "port", "7", "bring", *CAT], {}, {}).ports == (7, 7)
    assert read(["to", "host", "tunnel", *CAT], {}, {}).tunnel


def test_show_config() -> None:
    environ = {"VIAMILLIPEDE_FAR_COMMAND": "there", "VIAMILLIPEDE_WINDOW": "2M", "VIAMILLIPEDE_KEY_FILE": "none"}
    files = {"frame": ("64k", "f:2"), "key": ("none", "f:4"), "window": ("3M", "f:5")}
    shown = read("to host also h:7 also ::1 port 5 --show-config threads 4".split(), environ, files).shown
    entries = [re.split(" {2,}# |(?<!^) # ", each) for each in shown.splitlines()]
    for entry in (
        ["# also h:7", "command line"], ["# also ::1", "command line"], ["# port 5", "command line"],
        ["# tunnel no", "not said"], ["# far-command there", "VIAMILLIPEDE_FAR_COMMAND"], ["threads 4", "command line"],
        ["window 2M", "VIAMILLIPEDE_WINDOW"], ["frame 64k", "f:2"], ["wait 20s", "default of to"],
        ["# regroup 10s", "default"],
    ):  # fmt: skip
        assert entries.count(entry) == 1, entry
    assert not re.search("^(# )?(key|phrase|keep|names|streams|also ADDRESS)( |$)", shown, re.MULTILINE)
    assert read(["to", "host", *CAT], environ, files).shown == ""
    assert "# tunnel yes   " in read(["from", "host", "tunnel", "show-config", *CAT], {}, {}).shown


def test_show_config_is_printed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nobody is called for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        assert main(["to", "\udcff.invalid", "ssh-command", "\udcff", "--show-config"]) == 0
    out, err = capfd.readouterr()
    assert "# ssh-command \\udcff" in out and err == ""


def test_the_environment_and_files() -> None:
    environ = {
        "VIAMILLIPEDE_THREADS": "4", "VIAMILLIPEDE_WINDOW": "2M", "VIAMILLIPEDE_SSH_COMMAND": "my ssh",
        "VIAMILLIPEDE_FAR_COMMAND": "there", "VIAMILLIPEDE_KEY": "no key", "VIAMILLIPEDE_KEY_FILE": "none",
        "VIAMILLIPEDE_PHRASE": "none", "VIAMILLIPEDE_KEEP": "yes", "VIAMILLIPEDE_NAMES": "x*",
    }  # fmt: skip
    files = {"threads": ("5", "f:1"), "frame": ("64k", "f:2"), "keep": ("yes", "f:3"), "key": ("none", "f:4")}
    asked = read(["from", "host", *CAT], environ, files)
    assert asked.far_words == {"threads": "4", "window": "2M"}, "files are those of each host"
    assert (asked.ssh, asked.far_command) == (("my", "ssh"), "there")
    assert read(["from", "host", "ssh-command", "other", *CAT], environ, files).ssh == ("other",)
    far = read_far("tx", asked.far_words, {"VIAMILLIPEDE_JSON": "yes", **environ}, files)
    assert isinstance(far, TxConfig)
    assert (far.threads, far.frame_bytes, far.json, far.key) == (4, 65536, False, None)
    assert read(["to", "host", *CAT], {}, {"wait": ("5s", "f:1")}).config.wait_us == 5 * S_US


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("to", "'to' needs the other host, as ssh has it: viamillipede to DEST -- COMMAND"),
        ("to -- cat", "'to' needs the other host"),
        ("to host", "'to' needs a command, to be run over there: viamillipede to DEST -- COMMAND"),
        ("from host --", "'from' needs a command"),
        ("to -oProxyCommand=x -- cat", "'-oProxyCommand=x' is no host for ssh"),
        ("to host from host -- cat", "'from' does not go with 'to host'"),
        ("to host tx host 1 -- cat", "'tx' does not go with 'to host'"),
        ("to host key f -- cat", "'key' is no word of 'to' and 'from': each session has a fresh key of its own"),
        ("to host names x -- cat", "'names' is no word of 'to' and 'from'"),
        ("to host thread 8 -- cat", "unknown word 'thread'; did you mean 'threads'?"),
        ("to host tunel -- cat", "unknown word 'tunel'; did you mean 'tunnel'?"),
        ("to host version -- cat", "'version' does not go with 'to'"),
        ("to host --show-config=yes -- cat", "'show-config' does not go with 'to'"),
        ("to show-config tx host 1 -- cat", "'tx' does not go with"),
        ("to host show-config threads x", "threads: "),
        ("to host show-config also x tunnel", "'also' is no use with 'tunnel'"),
        ("to host threads 8 threads 9 -- cat", "'threads' was given twice"),
        ("to host port 1 port 2 -- cat", "'port' was given twice"),
        ("to host via lo via lo -- cat", "'via' was given twice"),
        ("to host threads -- cat", "'threads' needs a value after it"),
        ("to host --tunnel=yes -- cat", "'tunnel' takes no value"),
        ("to host port 9-8 -- cat", "port: in '9-8' the first is larger than the last; write a range like 60000-60010"),
        ("to host port 9- -- cat", "port: '9-' lacks its last port; write a range like 60000-60010"),
        ("to host port -9 -- cat", "port: '-9' lacks its first port"),
        ("to host port 9 tunnel -- cat", "'port' is no use with 'tunnel': no port need be open; leave one of them out"),
        ("to host port 0 -- cat", "port: "),
        ("to host port 1-x -- cat", "port: "),
        ("to host also a:b:c -- cat", "also: "),
        ("to host also h:0 -- cat", "also: "),
        ("also x to host -- cat", "'also' belongs behind the host"),
        ("to host also x tunnel -- cat", "'also' is no use with 'tunnel'"),
        ("to host bring bring-file f -- cat", "say 'bring', to send this program, or 'bring-file FILE'"),
        ("to host weight 0 -- cat", "to host weight: "),
        ("from host weight 1 -- cat", "'weight' is a word of tx, not of rx"),
        ("to host force -- cat", "'force' is a word of rx, not of tx"),
        ("from host threads 0 -- cat", "threads: "),
        ("from host frame 16M window 8M -- cat", "frame: 16M is more than a quarter of the window"),
        ("to host window 1 -- cat", "window: "),
    ],
)
def test_what_is_refused(line: str, expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(line.split(" "), {}, {})
    assert str(refused.value).startswith(expected)


def test_commands_that_cannot_be_split() -> None:
    for text, why in (("ssh '", "cannot be split into words"), (" ", "there is nothing to run")):
        with pytest.raises(UsageError, match=f"^ssh-command: .*{why}"):
            read(["to", "host", "ssh-command", text, *CAT], {}, {})
        with pytest.raises(UsageError, match=f"^VIAMILLIPEDE_SSH_COMMAND: .*{why}"):
            read(["to", "host", *CAT], {"VIAMILLIPEDE_SSH_COMMAND": text}, {})
    with pytest.raises(UsageError, match=r"^far-command: there is nothing to run"):
        read(["to", "host", "far-command", " ", *CAT], {}, {})


@pytest.mark.parametrize("words", [{"nonsense": "1"}, {"threads": "x"}, {"window": "1"}])
def test_words_that_a_far_end_does_not_know(words: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        read_far("tx", words, {}, {})


def test_the_words_that_are_offered_are_those_that_are_taken() -> None:
    """By the shells behind to and from."""
    roles = {option.word: option.role for option in options()}
    for verb in ("to", "from"):
        for word, wants in known_words().items():
            line = [verb, "host", word, *([SAMPLES[word]] if wants else []), *(["chaos", "9"] * (word == "chaos-kind"))]
            if is_word_of(verb, word, roles[word]):
                read([*line, *CAT], {}, {})
            else:
                with pytest.raises(UsageError, match=r"is (no|a) word of"):
                    read([*line, *CAT], {}, {})


def test_our_words_are_in_the_help() -> None:
    table = USAGE.partition("Of to and from alone")[2].partition("\n\n")[0]
    entries = re.findall(r"^  ([a-z-]+)(?: (\S+))? {2,}\S", table, re.MULTILINE)
    assert sorted(entries) == sorted((word.name, word.metavar.replace("RANGE", "N|LOW-HIGH")) for word in WORDS)
    assert not {word.name for word in WORDS} & known_words().keys()
