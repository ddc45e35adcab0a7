"""Makes the checkout's own virtual environment, or finds it made, and prints the path of its Python.

    python3 scripts/venv.py run|dev

`run` installs the project with what it needs, `dev` also what checks and tests it. They live in
.cache/run and .cache/dev, which nobody else uses, so they may be erased without asking; there are two,
so that making the one never takes the other from under a program that runs. An environment is complete
when its stamp says so; the stamp is written last, so what an interrupted run left behind is made anew.
A lock lets one run at a time work on them, and a pip that outlives its parent keeps that lock.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENOUGH = {"run": ("run", "dev"), "dev": ("dev",)}  # for each level, the environments that will do
DEFINED_BY = ("setup.cfg", "pyproject.toml", "viamillipede/__init__.py")  # dependencies, tools, version


class Trouble(Exception):
    """What went wrong, in words for the user."""


def stamp_of(root: Path) -> str:
    """What a complete environment says of itself: a hash of what it was made from."""
    digest = hashlib.sha256(str(root).encode())  # a moved environment does not work: its scripts hold its path
    for name in DEFINED_BY:
        digest.update(b"\0" + (root / name).read_bytes())
    return digest.hexdigest() + "\n"


def is_complete(venv: Path, root: Path) -> bool:
    """Whether `venv` was made to its end, from the present files, and its Python still runs."""
    try:
        stamp = (venv / "stamp").read_text()
    except FileNotFoundError:
        return False
    if stamp != stamp_of(root):
        return False
    try:  # the Python it was made with may have been uninstalled since
        return (
            subprocess.run([venv / "bin" / "python", "-c", "import viamillipede"], capture_output=True).returncode == 0
        )
    except OSError:
        return False


def run(lock: int, what: str, *command: str | Path) -> None:
    """Run one step with `lock` held by it too; Trouble, with its output, when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[lock])
    if done.returncode != 0:
        text = done.stdout.decode(errors="replace").strip()
        raise Trouble(f"{text}\ncould not {what}: the lines above say why; run it again when that is mended")


def make(venv: Path, level: str, root: Path, lock: int) -> None:
    """Build `venv` at `level` from nothing; the stamp comes last."""
    print(f"making a virtual environment in {venv.relative_to(root)}, once ...", file=sys.stderr)
    if venv.exists():
        shutil.rmtree(venv)
    python = venv / "bin" / "python"
    run(lock, "make a virtual environment", sys.executable, "-m", "venv", venv)
    project = f"{root}[dev]" if level == "dev" else str(root)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(lock, "install viamillipede and what it needs", *pip, "install", "--editable", project)
    (venv / "stamp").write_text(stamp_of(root))


def ready(level: str, root: Path) -> Path:
    """A complete environment that has at least `level`, made if there is none; Trouble if that cannot be done."""
    cache = root / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ENOUGH[level]:
            if is_complete(cache / name, root):
                return cache / name
        make(cache / level, level, root, lock.fileno())
        return cache / level


def main(arguments: list[str]) -> int:
    """Print the path of the environment's Python; 0, or 1 with the reason on stderr."""
    if len(arguments) != 1 or arguments[0] not in ENOUGH:
        print(f"usage: venv.py {'|'.join(ENOUGH)}", file=sys.stderr)
        return 2
    try:
        print(ready(arguments[0], ROOT) / "bin" / "python")
    except (OSError, Trouble) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
