"""Keys and phrases of command line, environment and files: which one wins, when it is read, what is refused."""

from pathlib import Path

import pytest

from tests.asking import RX, TX, refusal, rx, tx
from viamillipede import config_files
from viamillipede.config import KEY_PREFIX, Address, DoctorConfig, RxConfig, Secret, TxConfig
from viamillipede.errors import UsageError
from viamillipede.secret import COMMENT, fresh_key, spell_key
from viamillipede.settings import AnyConfig, parse, strange_variables
from viamillipede.words import translate

DOCTOR = ("doctor", "host", "8834")
KEYS = [fresh_key() for _ in range(3)]
PHRASE = Secret(b"long enough")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keys a, b and c, a phrase p; the working and the home directory."""
    for name, text in [*zip("abc", map(spell_key, KEYS), strict=True), ("p", PHRASE.data.decode()), ("open", "x")]:
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(f"{text}\n")
    (tmp_path / "open").chmod(0o644)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def no_asking(config: AnyConfig) -> Secret:
    raise AssertionError("nobody must be asked")


# Who says it. -----------------------------------------------------------------------------------------------
def test_each_role_takes_a_key_or_a_phrase(folder: Path) -> None:
    for form in (TX, RX, DOCTOR, ("tx", "listen", "1"), ("rx", "host", "1")):
        plain = parse(form, {})
        assert (plain.key, plain.phrase) == (None, None)
        for words in (["key", "a"], ["--key=a"], ["--key", f"{folder}/a"], ["--key=~/a"]):
            for argv in ([*form, *words], [*words, *form]):
                assert (parse(argv, {}).key, parse(argv, {}).phrase) == (KEYS[0], None)
        asked = parse([*form, "phrase", "p"], {})
        assert (asked.key, asked.phrase) == (None, PHRASE)


def test_variables(folder: Path) -> None:
    assert tx(VIAMILLIPEDE_KEY_FILE="a").key == KEYS[0]
    assert rx(VIAMILLIPEDE_KEY=spell_key(KEYS[1])).key == KEYS[1]
    assert rx(VIAMILLIPEDE_KEY_FILE="~/c", VIAMILLIPEDE_KEY="").key == KEYS[2]
    for text in (f"{COMMENT}\n{spell_key(KEYS[1])}", f"\n# mine\n\n{spell_key(KEYS[1])}\n"):  # "$(viamillipede key)"
        assert rx(VIAMILLIPEDE_KEY=text).key == KEYS[1]
    two = "\n".join(map(spell_key, KEYS))
    assert refusal(RX, VIAMILLIPEDE_KEY=two).startswith("VIAMILLIPEDE_KEY: there is more than one key in it")
    assert refusal(RX, VIAMILLIPEDE_KEY=COMMENT).startswith("VIAMILLIPEDE_KEY: there is no key in it")
    assert tx(VIAMILLIPEDE_PHRASE="p").phrase == PHRASE
    known = {"VIAMILLIPEDE_KEY": "x", "VIAMILLIPEDE_KEY_FILE": "x", "VIAMILLIPEDE_PHRASE": "x"}
    assert strange_variables(known) == []


@pytest.mark.parametrize("environ", [{"KEY_FILE": "open"}, {"KEY": "wrong"}, {"PHRASE": "absent"}, {"PHRASE": "ask"}])
def test_the_command_line_wins(folder: Path, environ: dict[str, str]) -> None:
    variables = {f"VIAMILLIPEDE_{name}": text for name, text in environ.items()}
    files = {"key": ("open", "f:1"), "phrase": ("open", "f:2")}
    for words, key, phrase in ((("key", "b"), KEYS[1], None), (("phrase", "p"), None, PHRASE)):
        config = parse([*TX, *words], variables, files, no_asking)
        assert (config.key, config.phrase) == (key, phrase)


def test_the_environment_wins_over_the_files(folder: Path) -> None:
    config = parse(TX, {"VIAMILLIPEDE_PHRASE": "p"}, {"key": ("a", "f:1")})
    assert (config.key, config.phrase) == (None, PHRASE)
    assert parse(TX, {"VIAMILLIPEDE_PHRASE": ""}, {"key": ("a", "f:1")}).key == KEYS[0]


def test_one_is_enough(folder: Path) -> None:
    assert refusal([*TX, "key", "a", "phrase", "p"]) == "key: not together with phrase; say one of them"
    for one, other in (("KEY_FILE", "PHRASE"), ("KEY_FILE", "KEY"), ("PHRASE", "KEY")):
        assert refusal(TX, **{f"VIAMILLIPEDE_{one}": "x", f"VIAMILLIPEDE_{other}": "x"}) == (
            f"VIAMILLIPEDE_{one}: not together with VIAMILLIPEDE_{other}; say one of them"
        )
    files = {"key": ("a", "f:1"), "phrase": ("p", "f:2")}
    assert refusal(TX, files) == "f:1: not together with f:2; say one of them"


# When it is read. -------------------------------------------------------------------------------------------
def test_it_is_read_last(folder: Path) -> None:
    for wrong in (["key", "open"], ["phrase", "ask"]):
        for rest, message in [
            (["frame", "16M", "window", "1M"], "frame: 16M is more than"),
            (["chaos-kind", "corrupt", "chaos", "9"], "chaos-kind: corrupt needs"),
            (["dashboard", "json"], "dashboard: not together"),
            (["--", "no-such-command"], "there is no command"),
        ]:
            with pytest.raises(UsageError, match=f"^{message}"):
                parse([*TX, *wrong, *rest], {}, None, no_asking)
    with pytest.raises(UsageError, match=r"^keep: a command is needed"):
        parse([*RX, "keep", "phrase", "ask"], {}, None, no_asking)


def test_who_asks_knows_the_rest(folder: Path) -> None:
    seen: list[AnyConfig] = []

    def ask(config: AnyConfig) -> Secret:
        seen.append(config)
        return PHRASE

    assert parse([*RX, "phrase", "ask"], {}, None, ask) == RxConfig(port=8834, phrase=PHRASE)
    assert parse(TX, {"VIAMILLIPEDE_PHRASE": "ask"}, None, ask).phrase == PHRASE
    assert seen == [RxConfig(port=8834), TxConfig(addresses=(Address("host", 8834),))]
    (folder / "ask").touch(0o600)
    (folder / "ask").write_text("in this file")
    assert rx("phrase", "./ask").phrase == Secret(b"in this file")


def test_a_doctor_that_talks_to_nobody_does_not_ask(folder: Path) -> None:
    for environ in ({"VIAMILLIPEDE_PHRASE": "ask"}, {"VIAMILLIPEDE_KEY_FILE": "open"}):
        assert parse(["doctor"], environ, None, no_asking) == DoctorConfig()
        assert parse(["doctor", "json"], environ, None, no_asking) == DoctorConfig(json=True)
    assert refusal(["doctor", "key", "absent"]).startswith("key: absent: no such file")


# Who is named when it is wrong. -----------------------------------------------------------------------------
def test_what_is_wrong_is_named(folder: Path) -> None:
    shared = "others can read or write this file; say: chmod 600"
    assert refusal([*TX, "key", "open"]) == f"key: open: {shared} open"
    assert refusal([*TX, "phrase", "open"]) == f"phrase: open: {shared} open"
    assert refusal(TX, VIAMILLIPEDE_KEY_FILE="open") == f"VIAMILLIPEDE_KEY_FILE: open: {shared} open"
    assert refusal(TX, {"phrase": ("open", "f:7")}) == f"f:7: open: {shared} open"
    assert refusal(TX, VIAMILLIPEDE_PHRASE="absent").startswith(
        "VIAMILLIPEDE_PHRASE: no such file. If that was the phrase itself, others could see it: choose another"
    )
    assert refusal([*TX, "phrase", "a"]) == "phrase: a: this is a key file; say key FILE"
    assert refusal(TX, VIAMILLIPEDE_KEY="/etc/key").startswith("VIAMILLIPEDE_KEY: this is no key; one begins with")
    assert refusal([*TX, "--key="]) == "key: '' is not the name of a file"
    assert refusal([*TX, "key"]) == "'key' needs a value after it"


@pytest.mark.parametrize(
    "argv",
    ["tx host 8834 key KEY", "--key=KEY rx 8834", "doctor host 8834 phrase KEY", "tx host 8834 KEY", "rx KEY", "KEY",
     "key KEY", "rx 8834 log KEY", "tx KEY 8834 -- sh"],
)  # fmt: skip
@pytest.mark.parametrize("text", [spell_key(KEYS[0]), spell_key(KEYS[0]).removeprefix(KEY_PREFIX)], ids=["key", "bare"])
def test_a_key_is_no_argument(argv: str, text: str) -> None:
    said = refusal(argv.replace("KEY", text).split())
    assert said.startswith("a key is no argument, for all users of this host can see it there")
    assert said.endswith(
        "make another with 'viamillipede key > FILE', copy that file to the other host, and say key FILE"
    )
    assert text.removeprefix(KEY_PREFIX) not in said and text[-8:] not in said
    assert translate(["rx", "1", "--", "sh", text]).command == ["sh", text], "that is the command's own affair"


def test_a_key_is_no_file(folder: Path) -> None:
    text = spell_key(KEYS[0])
    said = "this is a key itself, and the name of its file belongs here"
    assert refusal(TX, VIAMILLIPEDE_KEY_FILE=text) == f"VIAMILLIPEDE_KEY_FILE: {said}"
    assert refusal(TX, VIAMILLIPEDE_PHRASE=text) == f"VIAMILLIPEDE_PHRASE: {said}"
    assert refusal(TX, VIAMILLIPEDE_KEY_FILE=text.removeprefix(KEY_PREFIX)) == f"VIAMILLIPEDE_KEY_FILE: {said}"
    (folder / "config").write_text(f"threads 4\nkey {text}\n")
    for content in (f"key {text}", text, f"phrase = {text}", f'log "{text}"'):
        (folder / "config").write_text(f"threads 4\n{content}\n")
        with pytest.raises(UsageError) as caught:
            config_files.read([folder / "config"])
        assert str(caught.value) == (
            f"{folder}/config:2: a key belongs into a file of its own, that nobody else can read; say key FILE"
        )


# Files. -----------------------------------------------------------------------------------------------------
def test_beside_the_file_that_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder / "config"
    monkeypatch.chdir("/")
    for text, found in (
        ("a", f"{folder}/a"),
        ("x/a b", f"{folder}/x/a b"),
        ("/etc/k", "/etc/k"),
        ("~/a", f"{folder}/a"),
    ):
        for word in ("key", "phrase"):
            config.write_text(f'{word} "{text}"\n')
            assert config_files.said(config_files.read([config])) == {word: (found, f"{config}:1")}
    config.write_text("phrase ask\n")
    assert config_files.said(config_files.read([config])) == {"phrase": ("ask", f"{config}:1")}
    config.write_text("key b\n")
    assert parse(TX, {}, config_files.said(config_files.read([config]))).key == KEYS[1]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("key a", "phrase p", {"phrase"}),
        ("phrase p", "key a", {"key"}),
        ("key a\nphrase p", "key b", {"key"}),
        ("key a", "key b\nphrase p", {"key", "phrase"}),
        ("key a\nphrase p", "threads 4", {"key", "phrase"}),
    ],
)
def test_a_later_file_wins(folder: Path, first: str, second: str, expected: set[str]) -> None:
    (folder / "first").write_text(first)
    (folder / "second").write_text(second)
    said = config_files.said(config_files.read([folder / "first", folder / "second"]))
    assert said.keys() - {"threads"} == expected
    if len(expected) == 2:
        assert "not together with" in refusal(TX, said)
