"""Bringing the program along, in a zipapp that stands in for a released one: it takes the libraries of this Python."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from tests.e2e.helpers import KIB, ROOT, Side, eventually, read_all, some_bytes
from tests.e2e.ssh import missing
from tests.ssh.helpers import ENDS_WITHIN_S, Ends, Host, Processes
from viamillipede.errors import UsageError
from viamillipede.ssh.bring import taker, zipapp
from viamillipede.ssh.words import Asked, read

MISSING = missing()
MAIN = """
import os
assert os.environ.get("SHIV_ROOT"), "where a released one is told to unpack"
from viamillipede.__main__ import run
run()
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zipapp."""
    path = tmp_path_factory.mktemp("packed") / "viamillipede.pyz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", MAIN)
        for source in sorted((ROOT / "viamillipede").rglob("*.py")):
            archive.write(source, source.relative_to(ROOT))
    return path


def room(host: Host) -> tuple[Path, str]:
    """A folder for temporary files over there, and a Python that has only that."""
    folder = host["tmp"]
    folder.mkdir()
    return folder, f"TMPDIR={folder} {sys.executable}"


def asked(*words: str) -> Asked:
    """With `bring`, or `bring-file` and what follows."""
    return read(["to", "host", *words, "--", "cat"], {}, {})


@pytest.mark.slow
@pytest.mark.skipif(MISSING != "", reason=MISSING)
def test_a_host_without_the_program(host: Host, ends: Ends, packed: Path) -> None:
    folder, python = room(host)
    near = ends.near("to", "bring-file", packed, *host.busy(), program=python)
    near.write(data := some_bytes(4 * KIB))
    there = psutil.Process(host.number("far")).cmdline()[1]
    assert Path(there).parent.parent == folder and Path(there).parent.stat().st_mode & 0o777 == 0o700
    near.end_input()
    near.ends(0)
    assert host["data"].read_bytes() == data
    assert list(folder.iterdir()) == []
    script = 'echo "$SHIV_ROOT"; test -t 0 || cat'
    near = ends.near("from", "bring-file", packed, "tunnel", "--", "sh", "-c", script, program=python)
    assert read_all(near.output) == b"\n", "the command finds nothing of it"
    near.ends(0)
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(MISSING != "", reason=MISSING)
def test_the_zipapp_brings_itself(host: Host, packed: Path) -> None:
    folder, python = room(host)
    words = ["bring", "ssh-command", host.ssh, "far-command", python, "--", "echo", "hello"]
    done = subprocess.run(
        [sys.executable, packed, "from", host.dest, *words], capture_output=True, cwd="/",
        env={**os.environ, "SHIV_ROOT": "any"}, timeout=ENDS_WITHIN_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(MISSING != "", reason=MISSING)
@pytest.mark.parametrize("victim", ["near", "far", "ssh"])
def test_nothing_is_left_of_it(host: Host, ends: Ends, packed: Path, victim: str) -> None:
    folder, python = room(host)
    near: Side = ends.near("to", "bring-file", packed, "regroup", "1s", *host.busy(), program=python)
    near.write(some_bytes(4 * KIB))
    host.number("command")
    processes = Processes(near, host)
    assert len(list(folder.iterdir())) == 1
    {"near": near.kill, "far": processes.far.kill, "ssh": processes.ssh[0].kill}[victim]()
    near.process.wait(ENDS_WITHIN_S)
    processes.end()
    eventually(lambda: not list(folder.iterdir()), "the end of the folder", ENDS_WITHIN_S)
    assert not host["eof"].exists()


@pytest.mark.slow
@pytest.mark.skipif(MISSING != "", reason=MISSING)
def test_a_host_without_python(host: Host, ends: Ends, packed: Path) -> None:
    said = ends.near("from", "bring-file", packed, "--", "cat", program="no-such-python").ends(3)
    assert "has no 'no-such-python'; install Python 3.11 or newer there, or name it with far-command" in said


@pytest.mark.slow
@pytest.mark.skipif(MISSING != "", reason=MISSING)
def test_a_zipapp_that_is_for_another_python(host: Host, ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "other.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", "import sys; sys.stderr.write('needs another\\n'); sys.exit(2)")
    said = ends.near("from", "bring-file", path, "--", "cat", program=room(host)[1]).ends(4)
    assert "needs another" in said and "what was brought does not run there, and said why above" in said
    assert list(host["tmp"].iterdir()) == []


def test_a_python_that_is_too_old() -> None:
    """Told by the lines that any Python can read, before anything is taken."""
    line = taker(sys.executable, 10).replace(" 10 3.11 ", " 10 99.1 ")
    done = subprocess.run(["sh", "-c", line], input=b"", capture_output=True, timeout=ENDS_WITHIN_S, check=False)
    assert done.returncode == 3
    assert b"and 99.1 or newer is needed; name another one with far-command" in done.stdout


def test_lines_that_any_shell_takes() -> None:
    line = taker("python3", 10)
    assert "\n" not in line and not set(line) & set("$`!\\*?[]{}<>|&~#")


def test_what_cannot_be_brought(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^bring: this program is no zipapp .*; say 'bring-file FILE' with"):
        zipapp(asked("bring"))
    with pytest.raises(UsageError, match=r"^bring-file: .*/none is no file"):
        zipapp(asked("bring-file", str(tmp_path / "none")))
    other = tmp_path / "other"
    other.write_text("hello")
    with pytest.raises(UsageError, match=r"^bring-file: .*/other is no zipapp"):
        zipapp(asked("bring-file", str(other)))
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("hello", "")
    with pytest.raises(UsageError, match="is an archive, but no zipapp"):
        zipapp(asked("bring-file", str(other)))
