"""scripts/release: builds everything, checks it, and puts it into a folder."""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from releaselib import archive, check, library, package, source
from releaselib.common import NAME, ROOT, Trouble, describe, python_version, run

_Made = TypeVar("_Made")


def main(arguments: list[str]) -> int:
    """0 when all was built and runs; 1, with the reason on stderr, when not."""
    parser = argparse.ArgumentParser(prog="scripts/release", description="Build, check and collect what users install.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder for it (default: dist)")
    out: Path = parser.parse_args(arguments).out
    os.umask(0o022)  # file modes are part of what is built
    try:
        with tempfile.TemporaryDirectory(prefix=f"{NAME}-release-") as scraps:
            made = make(Path(scraps))
            publish(made, out)
    except (Trouble, OSError) as trouble:
        print(f"scripts/release: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make(work: Path) -> list[Path]:
    """Everything, built and checked, below `work`. Raises Trouble."""
    release = describe(work)
    say(f"{NAME} {release.version} for Python {python_version()}")
    if run("git", "-C", ROOT, "status", "--porcelain").strip():
        say("note: this is not what was committed; there are changes in the checkout")
    sdist, wheel = step("wheel, sdist", lambda: source.build(release))
    folder = step("library", lambda: library.install(release, wheel))
    pyz = step("zipapp", lambda: archive.pack(release, folder))
    deb = step("Debian package", lambda: package.pack(release, folder))
    step("run the wheel", lambda: check.check_wheel(release, wheel, folder))
    step("run the zipapp", lambda: check.check_pyz(release, pyz))
    step("run the Debian package", lambda: check.check_deb(release, deb))
    return [sdist, wheel, pyz, deb]


def publish(made: list[Path], out: Path) -> None:
    """Copy them into `out`, with their sums beside them."""
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in sorted(made, key=lambda path: path.name):
        shutil.copy2(path, out / path.name)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
        say(f"{path.stat().st_size / (1 << 20):8.1f} MiB  {out / path.name}")
    (out / "SHA256SUMS").write_text("".join(lines))


def step(what: str, work: Callable[[], _Made]) -> _Made:
    """Do it, and say how long it took."""
    began_s = time.monotonic()
    done = work()
    say(f"{time.monotonic() - began_s:6.1f} s  {what}")
    return done


def say(line: str) -> None:
    """Tell at once how far it is."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
