"""From the checkout to sdist and wheel, without writing into the checkout."""

import gzip
import io
import os
import shutil
import sys
import tarfile
from pathlib import Path

from releaselib.common import NAME, ROOT, Release, Trouble, run


def listing(root: Path) -> list[Path]:
    """What belongs to the project: files that git knows, or would take; relative, sorted. Raises Trouble."""
    names = run("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    found = sorted({Path(name) for name in names if name and (root / name).is_file()})
    if not found:
        raise Trouble(f"git knows no files in {root}")
    return found


def stage(release: Release) -> Path:
    """A copy of the checkout in which something may be built."""
    folder = release.work / "source"
    found = listing(ROOT)
    for path in found:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
        target.chmod(0o755 if os.access(ROOT / path, os.X_OK) else 0o644)
        os.utime(target, (release.epoch, release.epoch))
    # Without it an sdist would have little more than the package. It is not in the checkout: it only repeats git.
    top = sorted({path.parts[0] for path in found})
    lines = (f"graft {name}\n" if (folder / name).is_dir() else f"include {name}\n" for name in top)
    (folder / "MANIFEST.in").write_text("".join(lines))
    return folder


def build(release: Release) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made of it. Raises Trouble."""
    made = release.work / "made"
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", made, stage(release))
    run(*command, env=release.environment)
    stem = f"{NAME}-{release.version}"
    [wheel], [sdist] = made.glob("*.whl"), made.glob("*.tar.gz")
    if (wheel.name, sdist.name) != (f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"):
        raise Trouble(f"{wheel.name} and {sdist.name} are not what {stem} is called")
    repack(sdist, release.epoch)
    return sdist, wheel


def repack(sdist: Path, epoch: int) -> None:
    """The same archive without what depends on when, where and by whom it was made."""
    packed = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            fresh = tarfile.TarInfo(member.name)
            fresh.type, fresh.size, fresh.mtime = member.type, member.size, epoch
            fresh.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(fresh, old.extractfile(member) if member.isfile() else None)
    sdist.write_bytes(packed.getvalue())
