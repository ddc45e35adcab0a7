"""scripts/fuzz: its targets survive plain chance, and are sharp enough to notice what is broken on purpose."""

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from fuzzlib import __main__ as command  # noqa: E402
from fuzzlib import targets, to_rx, to_tx  # noqa: E402
from fuzzlib.script import NUMBERS, Script  # noqa: E402

from viamillipede.protocol.noise import CipherState  # noqa: E402
from viamillipede.protocol.reassembly import Copy, Plan, Reassembly  # noqa: E402
from viamillipede.protocol.send_window import SendWindow  # noqa: E402
from viamillipede.protocol.tx_session import TxSession  # noqa: E402

INPUTS = {"openings": 3000, "files": 3000, "records": 600, "doors": 150, "rx": 250, "rx-sealed": 250}
INPUTS_ELSE = 1000
SEEDS_EACH = 8  # mutants of a seed


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    """What the targets hold."""
    yield
    targets.close()


def inputs(name: str, count: int) -> Iterator[bytes]:
    """Seeds, seeds with a few bytes changed, and chance; the same each time."""
    chance, seeds = Random(name), targets.seeds(name)
    yield from seeds
    for number in range(count):
        if number % 2:
            yield chance.randbytes(chance.choice((10, 100, 1000)))
            continue
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, SEEDS_EACH)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randrange(2)] = chance.randbytes(chance.randrange(3))
        yield bytes(data)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_target_survives_chance(name: str) -> None:
    for number, data in enumerate(inputs(name, INPUTS.get(name, INPUTS_ELSE))):
        try:
            targets.TARGETS[name](data)
        except BaseException:
            print(f"input {number} of {name}: {data.hex()}")
            raise


def test_a_seed_of_rx_goes_to_the_end_of_a_stream() -> None:
    for sealed in (False, True):
        for data in targets.seeds("rx"):
            stream = to_rx.Stream(Script(data), sealed)
            while stream.script:
                stream.step()
                stream.after()
            assert stream.shell.rx.done and stream.shell.output == to_rx.TRUE[: stream.next_offset]


def test_a_seed_of_tx_goes_to_the_end_of_a_stream() -> None:
    for sealed in (False, True):
        done = 0
        for data in targets.seeds("tx"):
            stream = to_tx.Stream(Script(data), sealed)
            while stream.script and not stream.tx.done:
                stream.step()
                stream.check()
            done += stream.tx.done
        assert done >= 3


def test_a_script_ends() -> None:
    script = Script(b"\x01")
    assert script.byte() == 1 and not script and script.byte() == 0 and script.take(5) == b"" and script.number(7) == 7
    assert {Script(bytes([byte]) + bytes(8)).number() for byte in range(256)} >= set(NUMBERS)


# ---- broken on purpose ---------------------------------------------------------------------------------------


def _stores_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_stored(self: Reassembly, copy: Copy, count: int) -> None:
        self.store_view(copy)[:1] = b"\x00" if copy.position % 2 else b"\x55"
        right(self, copy, count)

    right = Reassembly.on_stored
    monkeypatch.setattr(Reassembly, "on_stored", on_stored)


def _takes_copies_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Reassembly.plan

    def plan(self: Reassembly, copy: Copy) -> tuple[Plan, int]:
        copy.useless = False
        found = right(self, copy)
        return (Plan.STORE, copy.left()) if found[0] is Plan.WAIT else found

    monkeypatch.setattr(Reassembly, "plan", plan)
    monkeypatch.setattr(Reassembly, "_verified", lambda self, header: True)


def _believes_any_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_into(self: CipherState, data: memoryview, out: memoryview, about: bytes = b"") -> None:
        out[:] = bytes(data[: len(out)])
        self.count += 1

    monkeypatch.setattr(CipherState, "open_into", open_into)


def _believes_any_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SendWindow.on_ack

    def on_ack(self: SendWindow, ack: object) -> list[object]:
        self.written = ack.written_bytes  # type: ignore[attr-defined]
        return right(self, ack)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(SendWindow, "on_ack", on_ack)


def _believes_any_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viamillipede.protocol.digest.compare", lambda own, theirs: None)


def _done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TxSession, "_on_message", lambda self, *_: setattr(self, "done", True))


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "stores elsewhere": (_stores_elsewhere, "rx"),
    "does not verify": (_takes_copies_from_anywhere, "rx"),
    "any tag": (_believes_any_tag, "records"),
    "any acknowledgement": (_believes_any_ack, "tx"),
    "any digest": (_believes_any_digest, "tx"),
    "done at once": (_done_at_once, "tx"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    breaks, target = BROKEN[name]
    breaks(monkeypatch)
    with pytest.raises((AssertionError, ValueError)):
        for data in inputs(target, 2000):
            targets.TARGETS[target](data)


# ---- the command line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "MINUTES"),
        (["soon"], "no number of minutes"),
        (["0"], "more than 0"),
        (["1", "rxx"], "'rxx' is no target"),
        (["again", "rx"], "again TARGET FILE"),
        (["again", "rx", "/nowhere"], "no such file"),
    ],
)
def test_bad_words(words: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2 and what in capsys.readouterr().err


def test_without_atheris(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.main(["1"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(r"needs atheris.* pip install .*\[fuzz\]", said)


def test_an_input_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "input"
    path.write_bytes(targets.seeds("openings")[1])
    assert command.main(["again", "openings", str(path)]) == 0
    assert "survives" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris")
def test_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs, covers something, and what it finds can be done again."""
    monkeypatch.setattr(command, "KEPT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'scripts'}")
    assert command.main(["0.05", "openings"]) == 0
    line = re.search(r"openings: (\d+) runs, (\d+) edges", capsys.readouterr().out)
    assert line and int(line[1]) > 100 and int(line[2]) > 10
    assert list((tmp_path / "corpus" / "openings").iterdir())
