"""scripts/demo and its virtual environment: what they say and how they end when something is wrong.

The demonstration runs a stand-in for the program here, which moves the bytes over one connection and can be
told to do one thing wrong; a demonstration that cannot fail would show nothing.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
TAR = bytes(range(256)) * 4096  # 1 MiB

STAND_IN = """
import os, socket, sys
role, fault = sys.argv[1], os.environ["FAULT"]
if role == "rx":
    listener = socket.create_server(("127.0.0.1", 0))
    if fault == "deaf":
        sys.exit("viamillipede rx: cannot bind")
    print(f"viamillipede rx: listening on port {listener.getsockname()[1]}", file=sys.stderr, flush=True)
    connection = listener.accept()[0]
    while data := connection.recv(65536):
        if fault == "flip":
            data, fault = bytes([data[0] ^ 1]) + data[1:], ""
        if fault == "short":
            data, fault = data[1:], ""
        os.write(1, data) == len(data) or sys.exit(9)
    connection.sendall(b"done")
    sys.exit(7 if fault == "rx fails" else 0)
if fault == "tx flees":
    sys.exit("viamillipede tx: no route")
connection = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
if fault == "tx hangs":
    print("tx hangs", file=sys.stderr, flush=True)
    connection.recv(1)
while fault != "tx fails" and (data := os.read(0, 65536)):
    connection.sendall(data)
connection.shutdown(socket.SHUT_WR)
if fault == "tx fails":
    sys.exit("viamillipede tx: no room")
connection.recv(4) == b"done" or sys.exit(5)
if fault != "silent":
    print("viamillipede tx: 2.0 MiB in 0.1 s, 20 MiB/s, 8 legs, 3 restarts, 0 retransmitted", file=sys.stderr)
"""


def load(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """scripts/demo.py, moving 2 MiB."""
    module = load("demo")
    monkeypatch.setattr(module, "TOTAL_BYTES_MIN", 2 * len(TAR))
    monkeypatch.setattr(module, "tar_of", lambda folder: TAR)
    return module


def stand_in(tmp_path: Path) -> list[str]:
    """A command that behaves as viamillipede does, but for what $FAULT says."""
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return [sys.executable, str(path)]


def test_the_demonstration_says_what_happened(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "")
    said = demo.demonstrate(stand_in(tmp_path))
    assert re.search(r"2,097,152 bytes in \d+\.\d\d s, [\d,]+ MiB/s, 8 legs, 3 restarts\n.* [0-9a-f]{64}$", said)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("flip", "what came out is not what went in"),
        ("short", "out: 2,097,151 bytes"),
        ("deaf", "rx closed its stderr before it listened, exit status 1:\n  viamillipede rx: cannot bind"),
        ("rx fails", "rx, exit status 7"),
        ("tx fails", "tx, exit status 1:\n  viamillipede tx: no room"),
        ("tx hangs", "tx, still running after 1 s:\n  tx hangs"),
        ("tx flees", "tx, exit status 1:\n  viamillipede tx: no route"),
        ("silent", "closing line does not say how many"),
    ],
)
def test_the_demonstration_fails_when_the_program_does(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setenv("FAULT", fault)
    monkeypatch.setattr(demo, "TRANSFER_S", 1 if fault == "tx hangs" else 60)
    monkeypatch.setattr(demo, "AFTERWARDS_S", 1)
    with pytest.raises(demo.Trouble) as trouble:
        demo.demonstrate(stand_in(tmp_path))
    assert words in str(trouble.value)


def test_the_demonstration_names_a_program_that_is_missing(demo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(demo.Trouble, match=r"cannot start .*absent: No such file"):
        demo.demonstrate([str(tmp_path / "absent")])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_demonstration_ends_its_processes_when_it_is_ended(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    # demo.py runs what lies beside its Python, so this one gets a Python of its own with the stand-in beside it.
    (tmp_path / "python").symlink_to(sys.executable)
    program = tmp_path / "viamillipede"
    python, path = stand_in(tmp_path)
    program.write_text(f"#!/bin/sh\nexec {python} {path} $1 $2 $3\n")
    program.chmod(0o755)
    environment = {**os.environ, "FAULT": "tx hangs", "PYTHONUNBUFFERED": "1"}
    script = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import demo\n"
        f"sys.executable, feed = {str(tmp_path / 'python')!r}, demo.feed\n"
        "demo.feed = lambda *words: (print('feeding'), feed(*words))\n"
        "sys.exit(demo.main())"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as ended:
        assert ended.stdout is not None and ended.stderr is not None
        try:
            assert "feeding\n" in ended.stdout
            started = psutil.Process(ended.pid).children(recursive=True)
            ended.send_signal(number)
            assert ended.wait(30) == status
        finally:
            ended.kill()
        assert ended.stderr.read() == ""
    assert len(started) == 2
    assert not any(process.is_running() for process in started)


def test_an_interpreter_that_will_not_do_is_named_with_the_reason(tmp_path: Path) -> None:
    shim, old, lacking = tmp_path / "shim", tmp_path / "old", tmp_path / "lacking"
    shim.write_text("#!/bin/sh\necho 'shim: command not found' >&2; exit 127\n")
    old.write_text("#!/bin/sh\nprintf 'version 3.9 is too old'\n")
    lacking.write_text(f'#!{sys.executable}\nimport sys\nsys.modules["venv"] = None\nexec(sys.argv[2])\n')
    for path in (shim, old, lacking):
        path.chmod(0o755)
    environment = {**os.environ, "PYTHON": f"{shim} {old} {lacking} {tmp_path}/absent"}
    done = subprocess.run([SCRIPTS / "demo"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert "needs Python 3.11 or later" in lines[0]
    assert lines[1] == f"  {shim}: does not run"
    assert lines[2] == f"  {old}: version 3.9 is too old"
    assert lines[3].startswith(f"  {lacking}: ") and "apt install python3-venv" in lines[3]
    assert lines[4] == f"  {tmp_path}/absent: not found"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of which only what defines its environment is there, and an environment that looks complete."""
    venv = load("venv")
    root = tmp_path / "checkout"
    for name in venv.DEFINED_BY:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCRIPTS.parent / name, root / name)
    for name in ("run", "dev"):
        python = root / ".cache" / name / "bin/python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\nexit 0\n")
        python.chmod(0o755)
        (root / ".cache" / name / "stamp").write_text(venv.stamp_of(root))
    return root


@pytest.mark.parametrize("damage", ["none", "stamp", "setup.cfg", "pyproject.toml", "moved", "python", "python fails"])
def test_an_environment_is_reused_only_if_it_is_complete(checkout: Path, damage: str) -> None:
    venv = load("venv")
    if damage == "stamp":
        (checkout / ".cache/run/stamp").unlink()
    elif damage == "moved":
        checkout = checkout.rename(checkout.with_name("elsewhere"))
    elif damage == "python":
        (checkout / ".cache/run/bin/python").unlink()
    elif damage == "python fails":
        (checkout / ".cache/run/bin/python").write_text("#!/bin/sh\nexit 1\n")
    elif damage != "none":
        with (checkout / damage).open("a") as file:
            file.write("# changed\n")
    assert venv.is_complete(checkout / ".cache/run", checkout) == (damage == "none")


def made_when_asked_for(level: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """The name of the environment that is offered, and the names of those that were made for it."""
    venv, made = load("venv"), []
    monkeypatch.setattr(venv, "make", lambda path, level, root, lock: made.append(path.name))
    return venv.ready(level, checkout).name, made


@pytest.mark.parametrize(
    ("level", "erased", "offered", "made"),
    [
        ("run", [], "run", []),
        ("dev", [], "dev", []),
        ("run", ["run"], "dev", []),
        ("dev", ["dev"], "dev", ["dev"]),
        ("run", ["run", "dev"], "run", ["run"]),
    ],
)
def test_the_tools_are_installed_only_for_who_needs_them(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, level: str, erased: list[str], offered: str, made: list[str]
) -> None:
    for name in erased:
        shutil.rmtree(checkout / ".cache" / name)
    assert made_when_asked_for(level, checkout, monkeypatch) == (offered, made)


def test_an_interrupted_or_failed_making_is_not_taken_for_complete(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = load("venv")

    def fail(lock: int, what: str, *command: object) -> None:
        raise venv.Trouble(what)

    monkeypatch.setattr(venv, "run", fail)
    with pytest.raises(venv.Trouble):
        venv.make(checkout / ".cache/run", "run", checkout, 0)
    assert not venv.is_complete(checkout / ".cache/run", checkout)


def test_a_failing_step_is_told_with_its_output() -> None:
    venv = load("venv")
    with open(os.devnull) as lock, pytest.raises(venv.Trouble, match=r"no such host\n.*could not fetch it"):
        venv.run(lock.fileno(), "fetch it", "sh", "-c", "echo no such host; exit 3")
