"""Each artefact is run as its user would run it: from an empty folder, with nothing in the environment but PATH.

It must say its version, and move a few MiB from a process of it to another one.
"""

import contextlib
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path

import demo

from releaselib.common import NAME, Release, Trouble, library_suffix, python_version, run

MIB = 1 << 20
DATA_BYTES = 4 * MIB
PATH = "/usr/local/bin:/usr/bin:/bin"
_NOTHING = Path("/proc/nothing-can-be-written-here")


def bare_python() -> str:
    """A Python that the libraries are for, and that has nothing installed for us."""
    asks = f"import importlib.machinery as m, sys; sys.exit({library_suffix()!r} not in m.EXTENSION_SUFFIXES)"
    for candidate in (f"/usr/bin/python{python_version()}", os.path.realpath(sys.executable)):
        with contextlib.suppress(Trouble):
            run(candidate, "-I", "-c", asks)
            return candidate
    raise Trouble(f"{os.path.realpath(sys.executable)} is not the Python that it was a moment ago")


def check_wheel(release: Release, wheel: Path, library: Path) -> None:
    """In a virtual environment that has what it needs."""
    folder = release.work / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", python)
    run(*pip, "install", "--no-deps", wheel)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "needs.pth").write_text(f"{library}\n")
    check_program(release, [folder / "bin" / NAME], {})
    for page in (f"man1/{NAME}.1", f"man7/{NAME}.7"):
        if not (folder / "share" / "man" / page).is_file():
            raise Trouble(f"{wheel.name} does not install {page}")


def check_pyz(release: Release, pyz: Path) -> None:
    """With a home, without one, with one that cannot be written to; and with a Python that it is not for."""
    home, scraps = release.work / "home", release.work / "scraps"
    home.mkdir()
    scraps.mkdir()
    command: list[str | Path] = [bare_python(), "-I", pyz]
    check_program(release, command, {"HOME": str(home)})
    if not list((home / ".cache" / NAME).iterdir()):
        raise Trouble(f"{pyz.name} did not unpack into its user's cache")
    without: list[dict[str, str]] = [{}, {"HOME": str(_NOTHING)}]
    for environment in without:
        check_version(release, command, {**environment, "TMPDIR": str(scraps)})
    if [path.name for path in scraps.iterdir()] != [f"{NAME}-{os.geteuid()}"]:
        raise Trouble(f"{pyz.name} did not unpack into TMPDIR where there is no home")


def check_deb(release: Release, deb: Path) -> None:
    """Unpacked, not installed."""
    folder = release.work / "unpacked"
    run("dpkg-deb", "--extract", deb, folder)
    check_program(release, [bare_python(), "-I", folder / "usr" / "bin" / NAME], {})


def check_version(release: Release, command: list[str | Path], environment: Mapping[str, str]) -> None:
    """It says the version that it has. Raises Trouble."""
    said = run(*_bare(command, environment), "--version", cwd=_empty(release))
    if not said.startswith(f"{NAME} {release.version}, "):
        raise Trouble(f"{command[-1]} --version says {said!r}")


def check_program(release: Release, command: list[str | Path], environment: Mapping[str, str]) -> None:
    """It says its version, and moves a stream. Raises Trouble."""
    check_version(release, command, environment)
    data = random.Random(release.version).randbytes(DATA_BYTES)
    with contextlib.chdir(_empty(release)):
        try:
            received, _, _ = demo.transfer([str(word) for word in _bare(command, environment)], data, 1)
        except demo.Trouble as trouble:
            raise Trouble(f"{command[-1]}: {trouble}") from trouble
    expected = demo.Received()
    expected.digest.update(data)
    if received.digest.digest() != expected.digest.digest():
        raise Trouble(f"{command[-1]}: what came out is not what went in")


def _bare(command: list[str | Path], environment: Mapping[str, str]) -> list[str | Path]:
    return ["env", "-i", f"PATH={PATH}", *(f"{name}={value}" for name, value in environment.items()), *command]


def _empty(release: Release) -> Path:
    folder = release.work / "empty"
    folder.mkdir(exist_ok=True)
    return folder
