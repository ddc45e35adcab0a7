"""Both suites, and frames that are sealed by threads: what a faster or a slower processor would choose."""

import os
from pathlib import Path

import pytest

from tests.e2e.helpers import KIB, MIB, ROOT, Stage, read_all
from viamillipede.config import Secret
from viamillipede.secret import spell_key

DATA = os.urandom(8 * MIB + 77)
NAMES = {1: "AES-256-GCM", 2: "ChaCha20-Poly1305"}
ANOTHER_PROCESSOR = """
import os, pathlib
import viamillipede.aio.descriptors as descriptors
import viamillipede.aio.keys as keys, viamillipede.aio.tx as tx
took = {{1: 1000, 2: 1000}}
took[{fast}] = 10
keys.trial_ns = lambda: took
if {aside}:
    keys.SLOW_NS, tx.CREW, submit = 0, 2, descriptors.Crew.submit
    def noted(self, call, on_result):
        pathlib.Path({mark!r}).touch()
        submit(self, call, on_result)
    tx.Crew.submit = noted
"""


PROCESSORS = {"aes": (1, False), "chacha": (2, False), "aes-aside": (1, True), "chacha-aside": (2, True)}


@pytest.fixture(params=PROCESSORS)
def processor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, bool, Path]:
    """The name of the suite that suits it, whether threads seal, and the file that is made when they do."""
    fast, aside = PROCESSORS[request.param]
    (tmp_path / "sitecustomize.py").write_text(
        ANOTHER_PROCESSOR.format(fast=fast, aside=aside, mark=str(tmp_path / "mark"))
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    return NAMES[fast], aside, tmp_path / "mark"


def key_in(folder: Path) -> tuple[object, ...]:
    path = folder / "key"
    path.touch(0o600)
    path.write_text(spell_key(Secret(bytes(range(32)))))
    return "key", path


@pytest.mark.parametrize("words", [(), ("chaos", 40, "chaos-kind", "all", "frame", "64k")], ids=["calm", "chaos"])
def test_a_stream(stage: Stage, processor: tuple[str, bool, Path], tmp_path: Path, words: tuple[object, ...]) -> None:
    name, aside, mark = processor
    key = key_in(tmp_path)
    checksum = ("checksum",) if words else ()
    rx = stage.rx(*key)
    tx = stage.tx(rx, *key, *words, *checksum, "verbose", 2)
    tx.feed([DATA[start : start + 100 * KIB] for start in range(0, len(DATA), 100 * KIB)])
    assert read_all(rx.output) == DATA
    for side in (tx, rx):
        assert f"encrypted with {name}" in side.ends(0)
    assert mark.exists() == aside
    assert not words or "by chaos" in tx.said


def test_a_failure_is_told_behind_a_frame_that_is_being_sealed(
    stage: Stage, processor: tuple[str, bool, Path], tmp_path: Path
) -> None:
    key = key_in(tmp_path)
    rx = stage.rx(*key)
    tx = stage.tx(rx, *key, "--", "sh", "-c", "head -c 3000000 /dev/zero; exit 3", stdin=None)
    assert len(read_all(rx.output)) <= 3_000_000
    assert "the source" in tx.ends(7)
    assert "the transmitter gave up" in rx.ends(8)
