"""The completion scripts, in the shells themselves: a line is typed into a terminal, and Tab is pressed.

A shell that is not installed is skipped. What is offered is compared with what the program takes.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from viamillipede.completion import SHELLS, asides, choices, complete, completion, words_of
from viamillipede.config import CHAOS_KINDS, DIGESTS, DoctorConfig, RxConfig, TxConfig
from viamillipede.errors import UsageError
from viamillipede.settings import FIELDS, parse
from viamillipede.ssh.words import WORDS
from viamillipede.usage_text import forms, levels, options
from viamillipede.words import ALIASES, TERMS, known_words

PATIENCE_S = 60
HOST = "alpha.example"

# Each shell says, on Control-T, what stands on its line now and what Tab has offered.
SETUP = {
    "bash": r"""
_probed() { _viamillipede; offered=("${COMPREPLY[@]}"); }
complete -F _probed viamillipede
said() { printf '\001%s\002%s\003' "$READLINE_LINE" "${offered[*]}"; offered=(); }
bind -x '"\C-t": said'
bind 'set completion-query-items 0'
bind 'set page-completions off'
bind 'set enable-bracketed-paste off'
""",
    "zsh": r"""
compadd() {
    if [[ ${argv[(I)-[OAD]]} -ne 0 ]]; then builtin compadd "$@"; return; fi
    local -a found
    builtin compadd -A found "$@"
    offered+=($found)
    builtin compadd "$@"
}
said() { print -rn -- $'\001'"$BUFFER"$'\002'"$offered"$'\003'; offered=() }
zle -N said
bindkey '^T' said
bindkey '^I' complete-word
bindkey '^U' kill-whole-line
unsetopt auto_menu
zstyle ':completion:*:hosts' hosts alpha.example
""",
}
START = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


class Terminal:
    """A shell at a terminal, with its completion script read."""

    def __init__(self, shell: str, folder: Path) -> None:
        script, setup = folder / f"viamillipede.{shell}", folder / "setup"
        script.write_text(completion(shell))
        read = f"source {script}"
        if shell == "zsh":  # as it is installed: in a folder, found by its name
            script = script.rename(folder / "_viamillipede")
            read = f"fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D"
        setup.write_text(f"{read}\n{SETUP[shell]}")
        (folder / "hosts").write_text(f"192.0.2.1 {HOST}\n")
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "LANG": "C.UTF-8"}
        environment |= {"HOSTFILE": str(folder / "hosts"), "PS1": "$ "}
        self._fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 500, 300, 0, 0))
        self._process = subprocess.Popen(
            START[shell],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._heard = b""
        try:
            self._type(f"source {setup}; echo re''ady\n")
            self._hear(rb"ready")
        except BaseException:
            self.close()
            raise

    def _type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def _hear(self, pattern: bytes) -> "re.Match[bytes]":
        deadline = time.monotonic() + PATIENCE_S
        while (match := re.search(pattern, self._heard, re.DOTALL)) is None:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._fd], [], [], left)[0], f"the shell only said {self._heard!r}"
            self._heard += os.read(self._fd, 65536)
        self._heard = self._heard[match.end() :]
        return match

    def tab(self, line: str) -> tuple[str, set[str]]:
        """What the line becomes when Tab is pressed behind `viamillipede LINE`, and all that is offered there."""
        self._type(f"viamillipede {line}\t\x14")
        match = self._hear(rb"\x01([^\x01]*)\x02(.*?)\x03")
        self._type("\x15")  # the line is thrown away
        return match[1].decode().removeprefix("viamillipede "), set(match[2].decode().split())

    def close(self) -> None:
        """End it and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._fd)


class Fish:
    """fish answers without a terminal."""

    def __init__(self, folder: Path) -> None:
        self._script, self._folder = folder / "viamillipede.fish", folder
        self._script.write_text(completion("fish"))
        (folder / ".ssh").mkdir()
        (folder / ".ssh" / "config").write_text(f"Host {HOST}\n")

    def tab(self, line: str) -> tuple[str, set[str]]:
        """As that of a Terminal; the line is completed where there is one candidate only."""
        last = line.rpartition(" ")[2]
        command = ["fish", "--no-config", "-c", f"source {self._script}; complete -C $argv[1]", f"viamillipede {line}"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder), "LANG": "C.UTF-8"}
        done = subprocess.run(command, env=environment, cwd=self._folder, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        offered = {row.partition("\t")[0] for row in done.stdout.splitlines()}
        fitting = {text for text in offered if text.startswith(last)}  # fish offers what merely contains it as well
        only = fitting.copy().pop() + " " if len(fitting) == 1 else last
        return line.removesuffix(last) + only, fitting

    def close(self) -> None:
        """Nothing runs."""


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each shell that is installed."""
    if shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    yield request.param


@pytest.fixture
def prompt(shell: str, tmp_path: Path) -> Iterator[Terminal | Fish]:
    """The shell, ready to be typed into."""
    (tmp_path / "some file").touch()
    (tmp_path / "some.log").touch()
    opened = Fish(tmp_path) if shell == "fish" else Terminal(shell, tmp_path)
    yield opened
    opened.close()


def applicable(config: type[RxConfig] | type[TxConfig] | type[DoctorConfig]) -> set[str]:
    """The words that set a field of this configuration."""
    return {word for word, (field, _) in FIELDS.items() if field in config.__slots__ or hasattr(config, field)}


RX, TX, DOCTOR = applicable(RxConfig), applicable(TxConfig), applicable(DoctorConfig)
FIRSTS = {"rx", "tx", "doctor", "completion", "to", "from"}
OWN = {word.name for word in WORDS}
NOT_THROUGH_SSH = {"key", "phrase", "keep", "streams", "names"}


def test_words_at_each_position(prompt: Terminal | Fish) -> None:
    for line, expected in [
        ("", RX | TX | FIRSTS | TERMS.keys()),
        ("rx 8834 ", RX | {"via", "--"}),
        ("rx host 8834 ", RX | {"via", "rx", "--"}),
        ("tx host 8834 ", TX | TERMS.keys() | {"tx", "--"}),
        ("tx listen 8834 ", TX | TERMS.keys() | {"--"}),
        ("doctor host 8834 ", DOCTOR),
        ("to host ", (TX | TERMS.keys() | OWN | {"--"}) - NOT_THROUGH_SSH),
        ("from host also host ", (TX | RX | {"via", "--"} | OWN) - NOT_THROUGH_SSH),
        ("to host ssh-command ", set()),
        ("tx threads 8834 threads 16 checksum --window=1G limit 1M ", TX | TERMS.keys() | {"tx", "--"}),
        ("rx 8834 wait 5 ", RX | {"via", "--"}),
        ("completion ", set(SHELLS)),
        ("completion bash ", set()),
        ("tx host ", set()),
        ("tx listen ", set()),
        ("rx 8834 window ", set()),
        ("rx 8834 digest ", set(DIGESTS)),
        ("tx host 8834 chaos-kind ", set(CHAOS_KINDS)),
        ("tx host 8834 threads ", {"auto"}),
        ("rx 8834 verbose ", set(levels("verbose"))),
        ("doctor ho", set()),
    ]:
        said = {word for word in ("threads", "checksum", "window", "wait") if re.search(rf"(?<!tx )\b{word}\b", line)}
        assert prompt.tab(line)[1] == expected - said, line


def test_words_are_completed(prompt: Terminal | Fish) -> None:
    for line, expected in [
        ("tx host 8834 thr", "tx host 8834 threads "),
        ("tx host 8834 --thr", "tx host 8834 --threads "),
        ("tx host 8834 --threads a", "tx host 8834 --threads auto "),
        ("tx host 8834 --threads=a", "tx host 8834 --threads=auto "),
        ("tx [::1] 8834 --digest=sh", "tx [::1] 8834 --digest=sha256 "),
        ("tx li", "tx listen "),
        ("threads 16 tx host 8834 chaos-kind tr", "threads 16 tx host 8834 chaos-kind truncate "),
        ("rx 8834 log some.", "rx 8834 log some.log "),
        ("rx 8834 --log=some.", "rx 8834 --log=some.log "),
        ("rx 8834 key some.", "rx 8834 key some.log "),
        ("key some.", "key some.log "),
        ("tx host 8834 --phrase=some.", "tx host 8834 --phrase=some.log "),
        ("rx 8834 phrase as", "rx 8834 phrase ask "),
        ("rx 8834 --phrase=as", "rx 8834 --phrase=ask "),
        ("rx 8834 phrase some.", "rx 8834 phrase some.log "),
        ("doctor host 8834 phr", "doctor host 8834 phrase "),
        ("rx 8834 --show", "rx 8834 --show-config "),
        ("--ver", "--ver"),
        ("to host bring-file some.", "to host bring-file some.log "),
        ("tx chaos 8834 chaos-k", "tx chaos 8834 chaos-kind "),
    ]:
        assert prompt.tab(line)[0] == expected, line


def test_hosts_are_offered(prompt: Terminal | Fish) -> None:
    for line in ("tx alph", "rx alph", "doctor alph", "tx host 8834 tx alph", "to alph", "from alph"):
        assert prompt.tab(line)[0] == f"{line.removesuffix('alph')}{HOST} "
    assert HOST not in prompt.tab("tx host 8834 alph")[1]


def test_what_is_behind_the_dashes_is_another_programs(prompt: Terminal | Fish) -> None:
    assert prompt.tab("rx 8834 -- syste")[1] or prompt.tab("rx 8834 -- dpkg")[1]
    assert "threads" not in prompt.tab("rx 8834 -- cat thread")[1]
    assert prompt.tab("rx 8834 -- cat some.")[0].startswith("rx 8834 -- cat some.log")


# What the scripts are made of. ------------------------------------------------------------------------------


def test_every_word_is_offered_and_taken() -> None:
    assert {option.word for option in words_of("")} | set(ALIASES) == set(known_words())
    assert {option.word for option in words_of("rx")} == RX | {"via"}
    assert {option.word for option in words_of("tx")} == TX | set(TERMS)
    assert {option.word for option in words_of("doctor")} == DOCTOR
    assert {option.word for option in asides()} == {"help", "version", "show-config"}
    assert {form.first for form in forms()} == FIRSTS | {"key"}, "which is offered as a word"


def test_every_choice_is_taken() -> None:
    offered = {option.word: [text for text, _ in choices(option.word)] for option in options() if option.word in FIELDS}
    for word, texts in offered.items():
        for text in texts:
            FIELDS[word][1](text)
    named = {word for word, texts in offered.items() if texts}
    assert named == {"threads", "digest", "verbose", "chaos-kind", "phrase"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_whole(shell: str) -> None:
    script = complete([shell])
    assert not re.search("@[A-Z]", script)
    assert script.endswith("\n")


@pytest.mark.parametrize("arguments", [[], ["tcsh"], ["bash", "zsh"], ["--help"]])
def test_another_shell_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^say one shell: completion bash\|zsh\|fish$"):
        complete(arguments)


def test_the_help_is_understood_as_docopt_understands_it() -> None:
    found = {option.word: bool(option.metavar) for option in options()}
    assert {word: found[word] for word in known_words()} == known_words()
    config = parse(["tx", "h", "1"], {})
    for option in options():
        if option.default and option.word in FIELDS and hasattr(config, FIELDS[option.word][0]):
            field, convert = FIELDS[option.word]
            assert getattr(config, field) == convert(option.default), option.word
