"""viamillipede(1) against the program: words, defaults, limits, levels, exit statuses, variables."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from unittest import mock

import pytest
from docopt import docopt

from viamillipede import config
from viamillipede.config import KEY_BYTES, Address, DoctorConfig, RxConfig, Secret, TxConfig
from viamillipede.errors import Exit, UsageError
from viamillipede.protocol.waits import NAMES, verdict
from viamillipede.settings import FIELDS, KEY_VARIABLE, parse
from viamillipede.ssh.words import VARIABLES, WORDS, read
from viamillipede.units import spell_size
from viamillipede.values import TERM_FIELDS
from viamillipede.words import TERMS, USAGE, known_words

PAGE = Path(__file__).parent.parent / "man" / "viamillipede.1"
README = PAGE.parent.parent / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part.partition("\n")[2] for part in re.split(r"^\.Sh ", TEXT, flags=re.M)[1:]}


def entries() -> dict[str, tuple[str, str]]:
    """Each word in WORDS: its argument in upper case, or "", and its description as running text."""
    parts = re.split(r"^\.It Cm (\S+)(?: Ar (\S+))?$", SECTIONS["WORDS"], flags=re.M)[1:]
    found = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {word: ((argument or "").upper(), running(text)) for word, argument, text in found}


def running(source: str) -> str:
    """mdoc source as one line, without the macros that only set the type."""
    return " ".join(re.sub(r"^\.(Cm|Ar|Em|Ql|Dv|Ev) ", "", source, flags=re.M).split())


def help_options() -> dict[str, str]:
    """Each option of the help text and its argument, or ""."""
    lines = re.findall(r"^ +(?:-\w, )?--([\w-]+)(?:=(\S+))?  ", USAGE, flags=re.M)
    return dict(lines)


def test_words_are_those_of_the_help() -> None:
    assert {word: argument for word, (argument, _) in entries().items()} == help_options()
    assert set(help_options()) == set(known_words()) | {"help", "version", "show-config"}


def test_defaults_are_those_of_the_help() -> None:
    options = docopt(USAGE, ["rx", "0"], default_help=False)
    for word, (_, text) in entries().items():
        stated = re.findall(r"[Tt]he default is ([\w]+)", text)
        default = options[f"--{word}"]
        assert stated == ([default] if isinstance(default, str) else []), word
    assert TxConfig().wait_us == 60 * config.S_US
    assert RxConfig().wait_us is None
    assert "rx waits for ever by default" in entries()["wait"][1]
    assert "for 60s by default" in entries()["wait"][1]


def test_limits_are_those_of_the_program() -> None:
    limits = {
        "threads": f"1 to {config.THREADS_MAX}, but",
        "weight": f"share, 1 to {config.WEIGHT_MAX}, among",
        "limit": f"From {spell_size(config.LIMIT_BYTES_MIN)} to {spell_size(config.LIMIT_BYTES_MAX)}.",
        "verbose": f"0 to {config.VERBOSE_MAX}",
        "window": f"{spell_size(config.WINDOW_BYTES_MIN)} to {spell_size(config.WINDOW_BYTES_MAX)}",
        "frame": f"{spell_size(config.FRAME_BYTES_MIN)} to {spell_size(config.FRAME_BYTES_MAX)}",
        "checkphrase": f"{config.CHECKPHRASE_BYTES} bytes",
        "key": f"{8 * config.KEY_BYTES} bits",
        "phrase": f"at least {config.PHRASE_CHARACTERS_MIN} characters",
        "name": f"1 to {config.NAME_BYTES_MAX} letters",
        "streams": f"at a time, 1 to {config.STREAMS_MAX}.",
        "interval": f"{config.INTERVAL_US_MIN // config.MS_US}ms at least; without it, one second.",
    }
    assert config.INTERVAL_US_DEFAULT == config.S_US
    commands = running(SECTIONS["COMMANDS AT BOTH ENDS"])
    assert f"not ended {config.COMMAND_END_US // config.S_US} s later it is sent SIGKILL" in commands
    assert f"SIGTERM , and SIGKILL {config.COMMAND_END_US // config.S_US} s later" in commands
    for word, limit in limits.items():
        assert limit in entries()[word][1], word
    assert f"from 1 to {config.THREADS_AUTO_MAX} for each path" in entries()["threads"][1]
    assert f"up to {config.THREADS_AUTO_MAX} for each path" in running(SECTIONS["WHAT TO CHOOSE WHEN"])
    assert f"silent for {config.LEG_SILENT_US // config.S_US} s is given up" in running(SECTIONS["WHAT TO CHOOSE WHEN"])
    assert f"the default of {spell_size(config.WINDOW_BYTES_DEFAULT)} is" in running(SECTIONS["WHAT TO CHOOSE WHEN"])


def roles_of(word: str) -> list[str]:
    """The roles that take the word."""
    if word in TERMS:
        return [
            role for role in ("tx", "rx") if is_accepted([role, "h", "1", word, "5000" if word == "limit" else "5"])
        ]
    return [role for role, fields in (("tx", TxConfig), ("rx", RxConfig)) if FIELDS[word][0] in fields.__match_args__]


def is_accepted(argv: list[str]) -> bool:
    """Whether the command line is."""
    try:
        parse(argv, {})
    except UsageError:
        return False
    return True


def test_words_of_one_role_say_so() -> None:
    found = {word: roles_of(word) for word in (*FIELDS, *TERMS)}
    assert (found["via"], found["weight"], found["limit"], found["force"]) == (["tx", "rx"], ["tx"], ["tx"], ["rx"])
    for word, roles in found.items():
        only = f"{roles[0]} only" if len(roles) == 1 else ""
        assert re.findall(r"\b[tr]x only(?=[.,])", entries()[word][1]) == ([only] if only else []), word
        in_help = re.search(rf"^ +--{word}(?:=\S+)? +(?:([tr]x)(?: PORT| keep)*: )?", USAGE, flags=re.M)
        assert in_help is not None, word
        assert in_help[1] == (roles[0] if only else None), word


def test_words_of_a_path_say_so() -> None:
    said = {word for word, (_, text) in entries().items() if "Behind a path" in text}
    assert said == set(TERMS) == set(TERM_FIELDS)


def test_kinds_of_chaos() -> None:
    source = re.split(r"^\.It Cm ", SECTIONS["WORDS"], flags=re.M)
    entry = next(part for part in source if part.startswith("chaos-kind "))
    named = set(re.findall(r"^\.Cm ([\w-]+)", entry, flags=re.M))
    assert named - {"chaos", "checksum", "tx"} == set(config.CHAOS_KINDS)


def test_levels_of_verbosity() -> None:
    levels = re.findall(r"^\.It (\d+)$", SECTIONS["WORDS"], flags=re.M)
    help_entry = USAGE[USAGE.index("--verbose=N") : USAGE.index("--chaos=N")]
    assert levels == ["0", "1", "2", "3", "5", "10", "20"]
    assert levels == re.findall(r"\b(\d+) [a-z]", help_entry)
    steps = re.search(r"from 0 to ((?:\d+, )+)and then to 0 again", running(SECTIONS["SIGNALS"]))
    assert steps is not None
    assert re.findall(r"\d+", steps[1]) == levels[1:]


def test_verdicts() -> None:
    known = {*NAMES.values(), "none in particular"}
    heads = re.findall(r"^\.It Em (.*)$", SECTIONS["PROGRESS"], flags=re.M)
    assert {head.removeprefix("Em ") for line in heads for head in line.split(" , ")} == known
    (example,) = re.findall(r"^bottleneck: .*$", SECTIONS["PROGRESS"], flags=re.M)
    assert example == verdict([0.93, 0.04, 0.0, 0.0, 0.0, 0.0], config.S_US, "")


def test_exit_statuses() -> None:
    statuses = re.findall(r"^\.It (\d+)$", SECTIONS["EXIT STATUS"], flags=re.M)
    assert [int(status) for status in statuses] == sorted(Exit)


def test_who_is_refused_may_have_another_key_or_phrase() -> None:
    refused = running(SECTIONS["EXIT STATUS"].partition(".It 4\n")[2].partition(".It 5\n")[0])
    assert "another key, phrase or checkphrase" in refused
    assert "another key or phrase, checkphrase" in README.read_text(encoding="utf-8")


def test_words_of_the_doctor() -> None:
    words = running(SECTIONS["DOCTOR"]).partition("Words:")[2].partition("instead of the report")[0]
    taken = {word for word, (field, _) in FIELDS.items() if field in DoctorConfig.__match_args__}
    assert set(re.findall(r"[a-z]+", words)) & set(FIELDS) == taken


def test_transient_statuses() -> None:
    parts = re.split(r"^\.It (\d+)$", SECTIONS["EXIT STATUS"].split(".El")[0], flags=re.M)[1:]
    transient = [int(status) for status, text in zip(parts[::2], parts[1::2], strict=True) if "Transient" in text]
    assert transient == [Exit.NO_CONTACT, Exit.PEER_LOST, Exit.LIMIT]


def test_variables_exist() -> None:
    variables = set(re.findall(r"VIAMILLIPEDE_[A-Z_]+[A-Z]", SECTIONS["ENVIRONMENT"])) - {"VIAMILLIPEDE_DEBUG"}
    names = {"VIAMILLIPEDE_" + word.upper().replace("-", "_") for word in FIELDS} | {"VIAMILLIPEDE_CHECKSUMS"}
    assert variables >= {"VIAMILLIPEDE_SESSION", "VIAMILLIPEDE_PEER", "VIAMILLIPEDE_NAME", KEY_VARIABLE}
    assert variables - {"VIAMILLIPEDE_SESSION", "VIAMILLIPEDE_PEER"} <= names | {f"{KEY_VARIABLE}_FILE"}
    assert f"{KEY_VARIABLE}_FILE" in variables


# Up to where the shell takes over; all behind -- is a command's.
EXAMPLE = r"viamillipede ((?:limit \S+ )?(?:[tr]x|doctor) [^|;>#<\n]*? -- .*|(?:limit \S+ )?[tr]x [^|;>#<\n]*|doctor.*)"


def asked(example: str) -> TxConfig | RxConfig | DoctorConfig:
    """What the example asks for, with a command that every host has in the place of its own."""
    argv = shlex.split(example)
    if "--" in argv:
        argv = [*argv[: argv.index("--")], "--", "sh", *argv[argv.index("--") :]]
    names = ("read_key_file", "read_phrase_file")
    readers = {name: mock.Mock(return_value=Secret(bytes(KEY_BYTES))) for name in names}  # wherever the reader has it
    with mock.patch.multiple("viamillipede.secret", **readers):
        return parse(argv, {})


def with_command(examples: list[str]) -> list[str]:
    """Those that have one."""
    return [example for example in examples if " -- " in example]


def test_examples_are_accepted() -> None:
    literals = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", TEXT, flags=re.M | re.S)
    examples = [match for text in literals for match in re.findall(EXAMPLE, text)]
    assert len(examples) >= 31
    assert len(with_command(examples)) >= 7
    for example in examples:
        config = asked(example)
        assert isinstance(config, DoctorConfig) or bool(config.command) == (" -- " in example)


def test_examples_of_the_help_are_accepted() -> None:
    examples = re.findall(EXAMPLE, USAGE[USAGE.index("Examples:") :])
    assert (len(examples), len(with_command(examples))) == (7, 2)
    for example in examples:
        assert asked(example)


def test_examples_of_commands_show_what_they_say() -> None:
    *_, keep, named = re.findall(EXAMPLE, SECTIONS["COMMANDS AT BOTH ENDS"])
    assert asked(named) == TxConfig(addresses=(Address("host", 8834),), name="db1")
    kept = asked(keep)
    assert isinstance(kept, RxConfig)
    assert (kept.keep, kept.streams, kept.names) == (True, 4, "db*")
    script = 'cat > "/backup/$VIAMILLIPEDE_NAME.tar"'
    assert kept.command == ("sh", "--", "sh", "-c", script)


def test_examples_show_what_they_say() -> None:
    paths = re.findall(EXAMPLE, SECTIONS["PATHS"])
    parsed = [config for config in map(asked, paths) if not isinstance(config, DoctorConfig)]
    assert [len(each.addresses) for each in parsed] == [3, 3, 2, 2, 2]
    shared, limited = parsed[1], parsed[2]
    assert [address.weight for address in shared.addresses] == [2, 1, 0]
    assert shared.addresses[2].limit_bytes == 5 * config.MIB
    assert isinstance(limited, TxConfig)
    assert (limited.limit_bytes, limited.addresses[1].limit_bytes) == (50 * config.MIB, 10 * config.MIB)
    assert [address.via for address in parsed[3].addresses] == ["192.0.2.5", "198.51.100.7"]
    dials = [asked(example) for example in re.findall(EXAMPLE, SECTIONS["WHO DIALS"])]
    address = (Address("host", 8834),)
    assert dials == [RxConfig(port=8834), TxConfig(addresses=address), TxConfig(port=8834), RxConfig(addresses=address)]


def test_examples_of_the_readme_are_accepted() -> None:
    readme = README.read_text(encoding="utf-8")
    whole = re.sub(r"\\\n\s+", "", readme)  # a line that goes on is one
    whole = re.sub(r"  +# .*", "", whole)
    examples = re.findall(rf"^    .*?{EXAMPLE}", whole, flags=re.M)
    assert len(examples) >= 18
    for example in examples:
        assert asked(example)


def test_statuses_of_the_readme() -> None:
    table = re.findall(r"^\| ([\d, ]+) \| .* \| (yes|) ?\|$", README.read_text(encoding="utf-8"), flags=re.M)
    statuses = [int(each) for cell, _ in table for each in cell.split(", ")]
    assert statuses == sorted(Exit)
    assert [int(cell) for cell, again in table if again] == [Exit.NO_CONTACT, Exit.PEER_LOST, Exit.LIMIT]


def test_words_of_both_ends_through_ssh() -> None:
    section = SECTIONS["BOTH ENDS THROUGH SSH"]
    found = re.findall(r"^\.It Cm (\S+)(?: Ar (\S+))?$", section, flags=re.M)
    assert {word: (argument or "").upper() for word, argument in found} == {each.name: each.metavar for each in WORDS}
    assert f"is {config.DIRECT_WAIT_US_DEFAULT // config.S_US}s here unless" in running(section)
    assert all(f"VIAMILLIPEDE_{name.upper().replace('-', '_')}" in section for name in VARIABLES)
    examples = re.findall(r"viamillipede ((?:to|from) \S+ .*?-- [^|\n]*)", section)
    assert [read(shlex.split(example), {}, {}).verb for example in examples] == ["to", "from"]


def test_sections() -> None:
    assert list(SECTIONS) == [
        "NAME", "SYNOPSIS", "DESCRIPTION", "WORDS", "PATHS", "WHO DIALS", "COMMANDS AT BOTH ENDS",
        "BOTH ENDS THROUGH SSH",
        "WHAT TO CHOOSE WHEN", "PROGRESS", "JSON", "METRICS", "DOCTOR", "SIGNALS", "ENVIRONMENT", "FILES",
        "SYSTEMD", "COMPLETION", "EXIT STATUS", "EXAMPLES", "SECURITY", "DIFFERENCES FROM THE C PROGRAM", "SEE ALSO",
    ]  # fmt: skip
    for signal in ("SIGUSR1", "SIGINFO", "SIGUSR2", "SIGINT", "SIGTERM", "SIGPIPE"):
        assert signal in SECTIONS["SIGNALS"]


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_nothing() -> None:
    command = ["mandoc", "-T", "lint", "-W", "warning", str(PAGE)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
